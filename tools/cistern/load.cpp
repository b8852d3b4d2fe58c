#include "load.hpp"

#include <utility>

#include <fmt/format.h>

#include "cistern/trace/read.hpp"
#include "command.hpp"

namespace cistern::command {

void add_device_option(CLI::App& command, std::optional<int>& device) {
  command.add_option("--device", device,
                     "Which device's events, if the file holds those of several");
}

LoadedTrace load(const std::string& file, std::optional<int> device) {
  auto trace = read_trace(file, {.device = device});
  if (!trace) throw JobFailed(trace.error().text());
  TraceSummary summary = summarise(*trace);
  return {.trace = std::move(*trace), .summary = std::move(summary), .layout = std::nullopt};
}

LoadedTrace load_with_layout(const std::string& file, std::optional<int> device) {
  auto recording = read_recording(file, {.device = device});
  if (!recording) throw JobFailed(recording.error().text());
  TraceSummary summary = summarise(recording->trace);
  return {.trace = std::move(recording->trace),
          .summary = std::move(summary),
          .layout = std::move(recording->layout)};
}

Json headline(const LoadedTrace& loaded) {
  const TraceSummary& summary = loaded.summary;
  return {{"name", loaded.trace.name},
          {"source", loaded.trace.source},
          {"events", summary.events},
          {"allocations", summary.allocations},
          {"frees", summary.frees},
          {"initial_blocks", summary.initial_blocks},
          {"initial_bytes", summary.initial_bytes},
          {"peak_live_bytes", summary.peak_live_bytes}};
}

std::string headline_text(const LoadedTrace& loaded) {
  const TraceSummary& summary = loaded.summary;
  std::string text =
      fmt::format("{} ({})\n{}, {}, peak live {}", loaded.trace.name, loaded.trace.source,
                  counted(summary.events, "event"), counted(summary.allocations, "allocation"),
                  in_units(summary.peak_live_bytes));
  if (summary.initial_blocks > 0) {
    text += fmt::format("\n{} of {} live at the start", counted(summary.initial_blocks, "block"),
                        in_units(summary.initial_bytes));
  }
  return text + '\n';
}

}  // namespace cistern::command
