// The CPU's memory, on a disk: what a program maps here can be larger than the memory of the
// machine or of its control group, because the system writes pages out to files and reads them
// back. In the stack language: `host(memory=file, path=folder)`.
//
// Each large block is a file of its own that has no name, so the disk's space comes back when the
// block does, and whatever becomes of the process. The space is reserved with the block: a full
// disk is a request that fails, not a crash later on. (A disk that breaks is a SIGBUS.) Where the
// folder lies in memory itself (tmpfs) nothing is gained. A process that is forked shares the
// memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

#include "cistern/core/device.hpp"

namespace cistern {

class BackingFolder;

class FileDevice final : public Device {
 public:
  struct Options {
    std::filesystem::path folder;  // empty: the system's folder for temporary files
    std::size_t map_from = std::size_t{256}
                           << 10;  // requests of so many bytes are files, smaller ones malloc'ed
    bool zero = false;             // small blocks are zeroed too; files always are
  };

  /// Throws std::system_error if no file can be made in the folder, std::invalid_argument if
  /// `map_from` is 0. The device's memory in all is what is free on the disk now.
  explicit FileDevice(const Options& options);

  [[nodiscard]] const std::filesystem::path& folder() const noexcept;

  /// What is free on the disk.
  [[nodiscard]] std::size_t free_memory() const noexcept override;

 private:
  ~FileDevice() override;
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;

  explicit FileDevice(std::unique_ptr<BackingFolder> folder, const Options& options);

  const std::unique_ptr<BackingFolder> folder_;
  const std::size_t map_from_;
  const bool zero_;
};

}  // namespace cistern
