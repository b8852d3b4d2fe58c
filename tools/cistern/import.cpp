// `cistern import`: any readable trace in our own format.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include "cistern/trace/write.hpp"
#include "command.hpp"
#include "load.hpp"
#include "output.hpp"

namespace cistern::command {
namespace {

struct ImportArguments {
  std::string in;
  std::string out;
  std::optional<int> device;
  bool text = false;
  bool gzip = false;
};

void run_import(const ImportArguments& arguments) {
  const LoadedTrace loaded = load(arguments.in, arguments.device);
  const bool gzip = arguments.gzip || std::filesystem::path(arguments.out).extension() == ".gz";
  const TraceFormat format = arguments.text ? TraceFormat::text : TraceFormat::binary;
  if (const auto written = write_trace(loaded.trace, arguments.out, format, gzip); !written) {
    throw JobFailed(written.error().text());
  }

  std::error_code unknown;  // standard output has no size
  const std::uintmax_t bytes = std::filesystem::file_size(arguments.out, unknown);
  fmt::print(stderr, "{}written as {}{} to {}{}\n", headline_text(loaded),
             arguments.text ? "text" : "binary", gzip ? ", compressed," : "",
             arguments.out == "-" ? "standard output" : arguments.out,
             unknown ? "" : fmt::format(": {}", in_units(bytes)));
}

}  // namespace

void add_import(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command =
      app.add_subcommand("import", "Convert a trace of any known format to cistern's own");
  command->add_option("IN", arguments->in, "The trace; - is standard input")->required();
  command->add_option("OUT", arguments->out, "The file to write; - is standard output")->required();
  command->add_flag("--text", arguments->text,
                    "Write one event a line instead of the compact form");
  command->add_flag("--gzip", arguments->gzip, "Compress; a name that ends in .gz implies it");
  add_device_option(*command, arguments->device);
  command->footer("Example:\n  cistern import snapshot.pickle run.trace.gz");
  command->callback([&job, arguments] { job = [arguments] { run_import(*arguments); }; });
}

}  // namespace cistern::command
