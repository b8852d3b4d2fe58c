#include "cistern/trace/read.hpp"

#include <utility>
#include <variant>

#include <fmt/format.h>

#include "cistern/trace/check.hpp"
#include "cistern/trace/lifetimes.hpp"
#include "trace/fail.hpp"
#include "trace/file.hpp"
#include "trace/gzip.hpp"
#include "trace/read_lifetimes.hpp"
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
  if (const Reader reader = recognise(bytes)) return reader(bytes, options);
  return fail_at_byte(
      0, fmt::format("begins with {}, as no known trace does: a cistern trace, a PyTorch snapshot "
                     "(pickle), an RMM log (CSV) or a Chrome trace (JSON) is expected",
                     in_quotes(bytes.substr(0, 16))));
}

tl::expected<Plannable, TraceError> plannable_uncompressed(std::string_view bytes,
                                                           const ReadOptions& options) {
  if (looks_like_lifetimes(bytes)) return read_lifetimes(bytes);
  if (recognise(bytes) != nullptr) return read_uncompressed(bytes, options);
  return fail_at_byte(
      0, fmt::format("begins with {}, as no table of lifetimes (CSV with the columns id, lower, "
                     "upper and size) and no known trace does",
                     in_quotes(bytes.substr(0, 16))));
}

tl::expected<Recording, TraceError> recording_uncompressed(std::string_view bytes,
                                                           const ReadOptions& options) {
  if (looks_like_pickle(bytes)) return import_pytorch_recording(bytes, options);
  return fail("is no PyTorch snapshot (a pickle), the one format that states addresses");
}

/// `read` of the contents, decompressed if need be.
template <class Read>
auto read_contents(std::string_view bytes, const ReadOptions& options, Read&& read)
    -> decltype(read(bytes, options)) {
  const auto checked = [&](std::string_view plain) -> decltype(read(bytes, options)) {
    if (plain.empty()) return fail("is empty");
    if (plain.size() <= options.max_bytes) return read(plain, options);
    return fail(fmt::format("is longer than {} bytes; a higher max_bytes would admit it",
                            options.max_bytes));
  };
  if (!is_gzip(bytes)) return checked(bytes);
  const auto inflated = inflate_gzip(bytes, options.max_bytes);
  if (!inflated) return tl::unexpected(inflated.error());
  return checked(*inflated);
}

/// `read` of a file's contents and its name.
template <class Read>
auto read_from_file(const std::filesystem::path& path, const ReadOptions& options, Read&& read)
    -> decltype(read(std::string_view(), std::string(), options)) {
  const auto named_in_full = [&](TraceError error) {
    error.file = path.string();
    return error;
  };
  return read_file(path, options.max_bytes)
      .and_then(
          [&](const std::string& bytes) { return read(bytes, path.filename().string(), options); })
      .map_error(named_in_full);
}

}  // namespace

ReadResult if_lawful(Trace trace) {
  if (auto lawful = check_trace(trace); !lawful) return tl::unexpected(std::move(lawful).error());
  return trace;
}

}  // namespace detail

tl::expected<Trace, TraceError> read_trace_from_memory(std::string_view bytes, std::string name,
                                                       const ReadOptions& options) {
  auto result = detail::read_contents(bytes, options, detail::read_uncompressed);
  if (result) {
    result->name = std::move(name);
  } else {
    result.error().file = std::move(name);
  }
  return result;
}

tl::expected<Trace, TraceError> read_trace(const std::filesystem::path& path,
                                           const ReadOptions& options) {
  return detail::read_from_file(path, options, read_trace_from_memory);
}

tl::expected<Recording, TraceError> read_recording_from_memory(std::string_view bytes,
                                                               std::string name,
                                                               const ReadOptions& options) {
  auto result = detail::read_contents(bytes, options, detail::recording_uncompressed);
  if (result) {
    result->trace.name = std::move(name);
  } else {
    result.error().file = std::move(name);
  }
  return result;
}

tl::expected<Recording, TraceError> read_recording(const std::filesystem::path& path,
                                                   const ReadOptions& options) {
  return detail::read_from_file(path, options, read_recording_from_memory);
}

tl::expected<Plannable, TraceError> read_plannable_from_memory(std::string_view bytes,
                                                               std::string name,
                                                               const ReadOptions& options) {
  auto result = detail::read_contents(bytes, options, detail::plannable_uncompressed);
  if (result) {
    std::visit([&](auto& each) { each.name = std::move(name); }, *result);
  } else {
    result.error().file = std::move(name);
  }
  return result;
}

tl::expected<Plannable, TraceError> read_plannable(const std::filesystem::path& path,
                                                   const ReadOptions& options) {
  return detail::read_from_file(path, options, read_plannable_from_memory);
}

}  // namespace cistern
