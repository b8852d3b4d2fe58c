// Records what passes through it to a trace file, cheaply enough to leave on: events go to a buffer
// of the calling thread, without a lock or a system call, and a full buffer is written as one chunk
// of the file. In the stack language: `trace`.
//
// A thread's first event allocates its buffer, even if it is a free; nothing else of a free
// allocates. After a fork the child's events are dropped, and the file stays the parent's.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "cistern/core/stage.hpp"

namespace cistern {

class Recorder final : public Stage {
 public:
  /// Creates or overwrites `file`. Throws std::system_error if that fails, or if another recorder,
  /// of any process, has not finished with it (a forked child keeps it for a parent that was
  /// killed).
  Recorder(Ref<Resource> upstream, const std::filesystem::path& file);

  /// Writes out what all threads have recorded so far and closes the file; what follows is passed
  /// on unrecorded. Threads that allocate meanwhile are waited for. False, whenever it is asked, if
  /// anything could not be written. Also done when the last `Ref` goes.
  bool finish() noexcept;

  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  [[nodiscard]] Expected<void> try_allocate_held_batch(std::span<const Request> requests,
                                                       std::span<Block> blocks) noexcept override;
  [[nodiscard]] Expected<Block> try_allocate_held(const Request& request) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  void cycle() noexcept override;
  /// Recorded as a reset, or as the frees of what came back where some blocks were held, and a
  /// cycle.
  std::size_t reset() noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  template <class Ask>
  Expected<Block> record_allocation(const Request& request, Ask&& ask) noexcept;
  template <class Ask>
  Expected<void> record_batch(std::span<const Request> requests, std::span<Block> blocks,
                              Ask&& ask) noexcept;

  ~Recorder() override;
  void abandoned() noexcept override;

  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cistern
