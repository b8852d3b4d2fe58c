// `cistern import`: any readable trace in our own format.
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "command.hpp"
#include "load.hpp"
#include "trace_output.hpp"

namespace cistern::command {
namespace {

struct ImportArguments {
  std::string in;
  TraceOutput out;
  std::optional<int> device;
};

void run_import(const ImportArguments& arguments) {
  const LoadedTrace loaded = load(arguments.in, arguments.device);
  const std::string written = save_trace(loaded.trace, arguments.out);
  fmt::print(stderr, "{}{}\n", headline_text(loaded), written);
}

}  // namespace

void add_import(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command =
      app.add_subcommand("import", "Convert a trace of any known format to cistern's own");
  command->add_option("IN", arguments->in, "The trace; - is standard input")->required();
  command->add_option("OUT", arguments->out.file, "The file to write; - is standard output")
      ->required();
  add_trace_form_options(*command, arguments->out);
  add_device_option(*command, arguments->device);
  command->footer("Example:\n  cistern import snapshot.pickle run.trace.gz");
  command->callback([&job, arguments] { job = [arguments] { run_import(*arguments); }; });
}

}  // namespace cistern::command
