// `cistern generate`: the trace of a program that uses several streams.
#include "cistern/trace/generate.hpp"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

#include "cistern/trace/summary.hpp"
#include "command.hpp"
#include "output.hpp"
#include "trace_output.hpp"

namespace cistern::command {
namespace {

struct GenerateArguments {
  std::string kind;
  GenerateOptions options;
  TraceOutput out;
};

Trace generate_as_asked(const GenerateArguments& arguments) {
  GenerateOptions options = arguments.options;
  const auto kind = program_kind(arguments.kind);
  if (!kind) {
    throw WrongArguments(fmt::format("no kind of program is called '{}' (there are {}, {}, {})",
                                     arguments.kind, name_of(ProgramKind::pipeline),
                                     name_of(ProgramKind::prefetch), name_of(ProgramKind::side)));
  }
  options.kind = *kind;
  try {
    return generate(options);
  } catch (const std::invalid_argument& error) {
    throw WrongArguments(error.what());
  }
}

void run_generate(const GenerateArguments& arguments) {
  const Trace trace = generate_as_asked(arguments);
  const std::string written = save_trace(trace, arguments.out);
  const TraceSummary summary = summarise(trace);
  fmt::print(stderr, "{} on {}: {} in {}, at most {} live; {}\n", trace.name,
             counted(arguments.options.streams, "stream"), counted(summary.events, "event"),
             counted(arguments.options.turns, "turn"), in_units(summary.peak_live_bytes), written);
}

}  // namespace

void add_generate(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  CLI::App* command = app.add_subcommand(
      "generate", "Make the trace of a program that uses several streams, from a seed");
  command->add_option("KIND", arguments->kind, "What it does: pipeline, prefetch or side")
      ->required();
  command
      ->add_option("--streams", options.streams,
                   fmt::format("1 to {}", GenerateOptions::most_streams))
      ->check(CLI::NonNegativeNumber)  // else a negative one would be a large one
      ->required();
  command->add_option("--seed", options.seed, "Decides all sizes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--turns", options.turns, fmt::format("1 to {}", GenerateOptions::most_turns))
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("-o,--out", arguments->out.file, "The file to write; - is standard output")
      ->capture_default_str();
  add_trace_form_options(*command, arguments->out);
  command->footer("Example:\n  cistern generate pipeline --streams 4 -o pipeline.trace.gz");
  command->callback([&job, arguments] { job = [arguments] { run_generate(*arguments); }; });
}

}  // namespace cistern::command
