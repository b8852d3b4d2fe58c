// A folder in which nameless files are made to back memory. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace cistern {

class BackingFolder {
 public:
  /// An empty path is the system's folder for temporary files. Throws std::system_error if no file
  /// can be made there.
  explicit BackingFolder(const std::filesystem::path& path);
  BackingFolder(const BackingFolder&) = delete;
  BackingFolder& operator=(const BackingFolder&) = delete;
  BackingFolder(BackingFolder&&) = delete;
  BackingFolder& operator=(BackingFolder&&) = delete;
  ~BackingFolder();

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

  /// Bytes that are free on the disk; SIZE_MAX where nobody knows. Allocates nothing.
  [[nodiscard]] std::size_t free_space() const noexcept;

  /// Puts a new file of `bytes`, a multiple of the page size, behind as much memory that is mapped
  /// at `memory`, and reserves the disk's space for it; it reads as zeros. The file ends with the
  /// mapping. Returns 0 or the system's error. Allocates nothing.
  [[nodiscard]] int back(void* memory, std::size_t bytes) noexcept;

 private:
  [[nodiscard]] int make_file() noexcept;

  const std::filesystem::path path_;
  const int handle_;
  std::atomic<std::uint64_t> files_{0};  // made so far
};

}  // namespace cistern
