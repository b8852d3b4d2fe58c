#include "trace/file.hpp"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <random>
#include <system_error>

#include <fmt/format.h>

#include "trace/fail.hpp"

namespace cistern::detail {
namespace {

namespace fs = std::filesystem;

using FileStream = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

int leave_open(std::FILE* /*stream*/) {
  return 0;
}

FileStream open_file(const fs::path& path, const char* mode) {
  if (path == "-") return {*mode == 'r' ? stdin : stdout, &leave_open};
  return {std::fopen(path.c_str(), mode), &std::fclose};
}

Failure system_failure(std::string_view what) {
  return fail(fmt::format("{}: {}", what, std::generic_category().message(errno)));
}

tl::expected<void, TraceError> write_directly(const fs::path& path, std::string_view bytes) {
  FileStream stream = open_file(path, "wb");
  if (stream == nullptr) return system_failure("cannot be opened for writing");
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), stream.get()) == bytes.size() &&
                       std::fflush(stream.get()) == 0;
  if (!written || stream.get_deleter()(stream.release()) != 0)
    return system_failure("cannot be written");
  return {};
}

}  // namespace

tl::expected<std::string, TraceError> read_file(const fs::path& path, std::uint64_t max_bytes) {
  constexpr std::size_t step_bytes = std::size_t{1} << 18;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return fail("is a directory, not a trace");
  const FileStream stream = open_file(path, "rb");
  if (stream == nullptr) return system_failure("cannot be opened");
  std::string bytes;
  while (std::feof(stream.get()) == 0) {
    const std::size_t used = bytes.size();
    bytes.resize(used + step_bytes);
    bytes.resize(used + std::fread(bytes.data() + used, 1, step_bytes, stream.get()));
    if (std::ferror(stream.get()) != 0) return system_failure("cannot be read");
    if (bytes.size() > max_bytes) {
      return fail(
          fmt::format("is longer than {} bytes; a higher max_bytes would admit it", max_bytes));
    }
  }
  return bytes;
}

tl::expected<void, TraceError> write_file(const fs::path& path, std::string_view bytes) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return fail("is a directory");
  if (path == "-" || (fs::exists(status) && !fs::is_regular_file(status)))
    return write_directly(path, bytes);

  error.clear();  // that there is no such file yet is none

  // Through a symbolic link the file it names is replaced, not the link.
  const fs::path target = fs::exists(status) ? fs::canonical(path, error) : path;
  if (error) return fail(fmt::format("cannot be found: {}", error.message()));
  fs::path partial = target;
  partial += fmt::format(".partial-{:08x}", std::random_device{}());
  auto written = write_directly(partial, bytes);
  if (written) {
    fs::rename(partial, target, error);
    if (error) written = fail(fmt::format("cannot be given its name: {}", error.message()));
  }
  if (!written) fs::remove(partial, error);
  return written;
}

}  // namespace cistern::detail
