// Writes a trace for a subcommand, in the form that its options ask for.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "cistern/trace/event.hpp"

namespace cistern::command {

struct TraceOutput {
  std::string file = "-";  // standard output
  bool text = false;
  bool gzip = false;  // so does a name that ends in .gz
};

/// `--text` and `--gzip`.
void add_trace_form_options(CLI::App& command, TraceOutput& output);

/// Returns a sentence that says what was written. Throws JobFailed.
std::string save_trace(const Trace& trace, const TraceOutput& output);

}  // namespace cistern::command
