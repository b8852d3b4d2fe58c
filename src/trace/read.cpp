#include "cistern/trace/read.hpp"

#include <utility>

#include <fmt/format.h>

#include "cistern/trace/check.hpp"
#include "trace/fail.hpp"
#include "trace/file.hpp"
#include "trace/gzip.hpp"
#include "trace/readers.hpp"

namespace cistern {
namespace detail {
namespace {

using Reader = ReadResult (*)(std::string_view, const ReadOptions&);

bool looks_like_pickle(std::string_view bytes) {
  return bytes.starts_with('\x80');
}

bool looks_like_json(std::string_view bytes) {
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && (bytes[first] == '{' || bytes[first] == '[');
}

/// The reader for what `bytes` begin with. Only as much of a signature is asked for as tells the
/// formats apart: the reader explains better what is wrong with the rest.
Reader recognise(std::string_view bytes) {
  if (bytes.starts_with("\x89"
                        "C"))
    return read_binary;
  if (bytes.starts_with("cistern-trace")) return read_text;
  if (bytes.starts_with("Thread,")) return import_rmm;
  if (looks_like_pickle(bytes)) return import_pytorch;
  if (looks_like_json(bytes)) return import_chrome;
  return nullptr;
}

ReadResult read_uncompressed(std::string_view bytes, const ReadOptions& options) {
  if (bytes.empty()) return fail("is empty");
  if (bytes.size() > options.max_bytes) {
    return fail(fmt::format("is longer than {} bytes; a higher max_bytes would admit it",
                            options.max_bytes));
  }
  if (const Reader reader = recognise(bytes)) return reader(bytes, options);
  return fail_at_byte(
      0, fmt::format("begins with {}, as no known trace does: a cistern trace, a PyTorch snapshot "
                     "(pickle), an RMM log (CSV) or a Chrome trace (JSON) is expected",
                     quoted(bytes.substr(0, 16))));
}

}  // namespace

ReadResult if_lawful(Trace trace) {
  if (auto lawful = check_trace(trace); !lawful) return tl::unexpected(std::move(lawful).error());
  return trace;
}

}  // namespace detail

tl::expected<Trace, TraceError> read_trace_from_memory(std::string_view bytes, std::string name,
                                                       const ReadOptions& options) {
  auto result = [&]() -> detail::ReadResult {
    if (!detail::is_gzip(bytes)) return detail::read_uncompressed(bytes, options);
    const auto inflated = detail::inflate_gzip(bytes, options.max_bytes);
    if (!inflated) return tl::unexpected(inflated.error());
    return detail::read_uncompressed(*inflated, options);
  }();
  if (result) {
    result->name = std::move(name);
  } else {
    result.error().file = std::move(name);
  }
  return result;
}

tl::expected<Trace, TraceError> read_trace(const std::filesystem::path& path,
                                           const ReadOptions& options) {
  const auto named_in_full = [&](TraceError error) {
    error.file = path.string();
    return error;
  };
  return detail::read_file(path, options.max_bytes)
      .and_then([&](const std::string& bytes) {
        return read_trace_from_memory(bytes, path.filename().string(), options);
      })
      .map_error(named_in_full);
}

}  // namespace cistern
