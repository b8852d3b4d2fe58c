// Reads a trace for a subcommand and says in JSON what it is.
#pragma once

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "cistern/trace/event.hpp"
#include "cistern/trace/recorded_layout.hpp"
#include "cistern/trace/summary.hpp"
#include "output.hpp"

namespace cistern::command {

struct LoadedTrace {
  Trace trace;
  TraceSummary summary;
  std::optional<RecordedLayout> layout;  // where it was asked for
};

/// `--device`, as every subcommand that reads a trace has it.
void add_device_option(CLI::App& command, std::optional<int>& device);

/// Throws JobFailed if there is no readable trace in `file`. `device` is one of those that the file
/// may hold.
LoadedTrace load(const std::string& file, std::optional<int> device);

/// The same with where the recorded memory lay; only a PyTorch snapshot says so.
LoadedTrace load_with_layout(const std::string& file, std::optional<int> device);

/// "name", "source" and the trace's most asked-for figures.
Json headline(const LoadedTrace& loaded);

/// The same in a line for people.
std::string headline_text(const LoadedTrace& loaded);

}  // namespace cistern::command
