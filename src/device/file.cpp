#include "cistern/device/file.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include <sys/mman.h>

#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "device/backing_folder.hpp"
#include "device/cache_line.hpp"
#include "device/mapping.hpp"

namespace cistern {
namespace {

DeviceLimits file_limits(const BackingFolder& folder) {
  const std::size_t space = folder.free_space();
  return {.kind = "host",
          .name = "host memory in files of " + folder.path().string(),
          .total_memory = space != unbounded ? space : 0,
          .max_allocation = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()),
          .alignment = cache_line,
          .max_alignment = std::size_t{1} << 30,
          .granularity = cache_line,
          .memory_is_address = true,
          .host_addressable = true};
}

Errc kind_of(int error) noexcept {
  const bool is_exhaustion =
      error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM;
  return is_exhaustion ? Errc::out_of_memory : Errc::device_failed;
}

}  // namespace

FileDevice::FileDevice(const Options& options)
    : FileDevice(std::make_unique<BackingFolder>(options.folder), options) {}

FileDevice::FileDevice(std::unique_ptr<BackingFolder> folder, const Options& options)
    : Device(file_limits(*folder)),
      folder_(std::move(folder)),
      map_from_(options.map_from),
      zero_(options.zero) {
  if (map_from_ == 0) throw std::invalid_argument("host: map_from is at least 1 byte");
}

FileDevice::~FileDevice() = default;

const std::filesystem::path& FileDevice::folder() const noexcept {
  return folder_->path();
}

std::size_t FileDevice::free_memory() const noexcept {
  return folder_->free_space();
}

Expected<Device::Piece> FileDevice::obtain(std::size_t bytes, std::size_t alignment,
                                           Stream /*stream*/) noexcept {
  if (bytes < map_from_) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes) != 0)
      return tl::unexpected(fail(Errc::out_of_memory, bytes));
    if (zero_) std::memset(memory, 0, bytes);
    return Piece{.memory = memory, .bytes = bytes, .alignment = alignment};
  }
  const std::optional<std::size_t> mapped = round_up(bytes, page_size());
  if (!mapped) return tl::unexpected(fail(Errc::too_large, bytes));
  void* const memory = map_aligned(*mapped, alignment);
  if (memory == nullptr) return tl::unexpected(fail(Errc::out_of_memory, bytes));
  if (const int error = folder_->back(memory, *mapped); error != 0) {
    munmap(memory, *mapped);
    return tl::unexpected(fail(kind_of(error), bytes, error == ENOSPC ? free_memory() : 0));
  }
  return Piece{.memory = memory, .bytes = *mapped, .alignment = alignment};
}

void FileDevice::give_back(Piece piece, Stream /*stream*/) noexcept {
  if (piece.bytes < map_from_) {
    std::free(piece.memory);
  } else if (munmap(piece.memory, piece.bytes) != 0) {
    madvise(piece.memory, piece.bytes, MADV_REMOVE);
    report(
        "host could not unmap %zu bytes of a file; their space is returned, their addresses are "
        "not",
        piece.bytes);
  }
}

}  // namespace cistern
