#include "device/backing_folder.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

[[noreturn]] void throw_unusable(int error, const std::filesystem::path& path) {
  throw std::system_error(error, std::generic_category(),
                          "host: no memory can be backed by files in the folder " + path.string());
}

int open_folder(const std::filesystem::path& path) {
  const int handle = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) throw_unusable(errno, path);
  return handle;
}

/// Gives a file its size and the disk's space for it. Returns 0 or the system's error.
int reserve(int file, std::size_t bytes) noexcept {
  rlimit largest{};  // a file beyond it is not an error but a signal, which ends the process
  if (getrlimit(RLIMIT_FSIZE, &largest) == 0 && bytes > largest.rlim_cur) return EFBIG;
  int error = 0;
  do {
    error = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  return error;
}

}  // namespace

BackingFolder::BackingFolder(const std::filesystem::path& path)
    : path_(path.empty() ? std::filesystem::temp_directory_path() : path),
      handle_(open_folder(path_)) {
  const int file = make_file();
  if (file < 0) {
    close(handle_);
    throw_unusable(-file, path_);
  }
  close(file);
}

BackingFolder::~BackingFolder() {
  close(handle_);
}

std::size_t BackingFolder::free_space() const noexcept {
  struct statvfs disk {};
  if (fstatvfs(handle_, &disk) != 0) return unbounded;
  return checked_multiply(disk.f_bavail, disk.f_frsize).value_or(unbounded);
}

// Nameless files (O_TMPFILE) are not to be had on every file system: this one has a name for a
// moment. Returns the file, or the system's error below zero.
int BackingFolder::make_file() noexcept {
  while (true) {
    std::array<char, 64> name{};
    std::snprintf(name.data(), name.size(), ".cistern-%ld-%p-%llu", static_cast<long>(getpid()),
                  static_cast<const void*>(this), static_cast<unsigned long long>(++files_));
    const int file = openat(handle_, name.data(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file >= 0) {
      unlinkat(handle_, name.data(), 0);
      return file;
    }
    if (errno != EEXIST && errno != EINTR) return -errno;
  }
}

int BackingFolder::back(void* memory, std::size_t bytes) noexcept {
  const int file = make_file();
  if (file < 0) return -file;
  int error = reserve(file, bytes);
  if (error == 0 &&
      mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
    error = errno;
  }
  close(file);
  return error;
}

}  // namespace cistern
