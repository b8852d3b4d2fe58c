#include "cistern/trace/write.hpp"

#include <cstddef>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cistern/trace/check.hpp"
#include "cistern/trace/encode.hpp"
#include "trace/file.hpp"
#include "trace/gzip.hpp"
#include "trace/readers.hpp"
#include "trace/text_words.hpp"

namespace cistern {
namespace {

std::string to_binary(const Trace& trace) {
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  append_initial_blocks(trace.initial_blocks, bytes);
  append_chunk(trace.events, bytes);
  append_end(trace.events.size(), bytes);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string to_text(const Trace& trace) {
  std::string text;
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "{}\n", detail::text_signature);
  if (!trace.initial_blocks.empty()) fmt::format_to(out, "# {}\n", detail::initial_columns);
  for (const InitialBlock& block : trace.initial_blocks) {
    fmt::format_to(out, "{} {} {} {} {}\n", detail::initial_word, block.id, block.bytes,
                   block.alignment, block.stream);
  }
  fmt::format_to(out, "# {}\n", detail::event_columns);
  for (const Event& event : trace.events) {
    fmt::format_to(out, "{} {} {} {} {} {} {} {}\n",
                   detail::operation_words[static_cast<std::size_t>(event.operation) - 1],
                   event.sequence, event.time_ns, event.thread, event.id, event.bytes,
                   event.alignment, event.stream);
  }
  fmt::format_to(out, "{}\n", detail::end_word);
  return text;
}

tl::expected<std::string, TraceError> compressed(std::string bytes, bool gzip) {
  if (gzip) return detail::deflate_gzip(bytes);
  return bytes;
}

}  // namespace

tl::expected<void, TraceError> write_trace(const Trace& trace, const std::filesystem::path& path,
                                           TraceFormat format, bool gzip) {
  if (auto lawful = check_trace(trace); !lawful) return lawful;
  return compressed(format == TraceFormat::text ? to_text(trace) : to_binary(trace), gzip)
      .and_then([&](const std::string& bytes) { return detail::write_file(path, bytes); })
      .map_error([&](TraceError error) {
        error.file = path.string();
        return error;
      });
}

}  // namespace cistern
