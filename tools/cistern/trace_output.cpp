#include "trace_output.hpp"

#include <cstdint>
#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "cistern/trace/write.hpp"
#include "command.hpp"
#include "output.hpp"

namespace cistern::command {

void add_trace_form_options(CLI::App& command, TraceOutput& output) {
  command.add_flag("--text", output.text, "Write one event a line instead of the compact form");
  command.add_flag("--gzip", output.gzip, "Compress; a name that ends in .gz implies it");
}

std::string save_trace(const Trace& trace, const TraceOutput& output) {
  const bool gzip = output.gzip || std::filesystem::path(output.file).extension() == ".gz";
  const TraceFormat format = output.text ? TraceFormat::text : TraceFormat::binary;
  if (const auto written = write_trace(trace, output.file, format, gzip); !written) {
    throw JobFailed(written.error().text());
  }
  std::error_code unknown;  // standard output has no size
  const std::uintmax_t bytes = std::filesystem::file_size(output.file, unknown);
  return fmt::format("written as {}{} to {}{}", output.text ? "text" : "binary",
                     gzip ? ", compressed," : "",
                     output.file == "-" ? "standard output" : output.file,
                     unknown ? "" : fmt::format(": {}", in_units(bytes)));
}

}  // namespace cistern::command
