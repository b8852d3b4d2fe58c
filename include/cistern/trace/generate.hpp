// Makes traces of programs that use several streams, which recorded ones seldom do: whoever wants
// to know what streams cost needs the same program on one and on many.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "cistern/trace/event.hpp"

namespace cistern {

/// What a program does with its streams.
enum class ProgramKind : std::uint8_t {
  /// The stages of a network pass micro-batches on, each stage on a stream: an activation is freed
  /// on the stream of the next stage, a gradient on that of the former. A turn fills the pipeline,
  /// keeps it full (one forward, one backward), and drains it.
  pipeline,
  /// Stream 0 trains; the others fetch batches and weights ahead, which stream 0 uses and frees.
  prefetch,
  /// Stream 0 trains; the others exchange activations and gradients and step the optimiser, with
  /// buffers of their own. Gradients are allocated on stream 0 and freed on another.
  side,
};

struct GenerateOptions {
  static constexpr std::uint64_t most_streams = 16;
  static constexpr std::uint64_t most_turns = 1000;

  ProgramKind kind = ProgramKind::pipeline;
  std::uint64_t streams = 1;
  std::uint64_t seed = 1;  // decides all sizes
  std::uint64_t turns = 10;
};

/// A lawful trace (check.hpp), the same on every machine. What lives over all turns is allocated
/// before the first, which a cycle event begins as every other, and everything is freed in the end.
/// Up to 8 streams the program is the same whatever their number, event by event: its parts share
/// them. A pipeline has 8 stages, or one for each stream if these are more. What is live at one
/// time is some gigabytes. Streams are ids from 0, times are 0. Throws std::invalid_argument if the
/// streams or turns are none or too many. O(events), of which a turn has thousands.
[[nodiscard]] Trace generate(const GenerateOptions& options);

/// "pipeline", "prefetch" or "side".
[[nodiscard]] std::string_view name_of(ProgramKind kind) noexcept;
[[nodiscard]] std::optional<ProgramKind> program_kind(std::string_view name) noexcept;

}  // namespace cistern
