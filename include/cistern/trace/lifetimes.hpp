// What a plan is made for: buffers with the names that they have outside. They are listed in a
// table, or taken from a recorded run.
//
// Functions without state: safe from any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/plan/lifetime.hpp"
#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/read.hpp"

namespace cistern {

struct Lifetimes {
  std::string name;               // where they came from: a file name without its folder
  std::string source;             // the format: "lifetimes-csv", or that of the trace
  std::vector<std::string> ids;   // each is there once
  std::vector<Lifetime> buffers;  // one for each id
};

/// The blocks of `trace`, which must be lawful (check.hpp). Time counts events: the first happens
/// at 1, so that 0, from where the initial blocks live, is before it. What is not freed lives until
/// after the last. Empty blocks are left out. O(events).
[[nodiscard]] Lifetimes lifetimes_of(const Trace& trace);

using Plannable = std::variant<Lifetimes, Trace>;

/// Reads either a table of lifetimes (docs/trace-format.md) or a trace of any format; which of them
/// it is, is told from the contents. Fails as `read_trace` does. O(n log n).
[[nodiscard]] tl::expected<Plannable, TraceError> read_plannable(const std::filesystem::path& path,
                                                                 const ReadOptions& options = {});

/// The same for contents already in memory, called `name` in the result and in errors.
[[nodiscard]] tl::expected<Plannable, TraceError> read_plannable_from_memory(
    std::string_view bytes, std::string name, const ReadOptions& options = {});

}  // namespace cistern
