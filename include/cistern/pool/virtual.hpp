// A pool in which holes cost addresses and not memory: it reserves a large range of addresses once
// and maps pages only where something lives. A request fails only if there are not enough pages in
// all, however they are spread, and a block can grow where it lies. In the language: `virtual`.
//
// It stands directly on a device with `VirtualMemory`, and bounds its pages by its own `max_bytes`.
#pragma once

#include <cstddef>
#include <mutex>
#include <span>

#include "cistern/core/device.hpp"
#include "cistern/core/handover.hpp"
#include "cistern/core/idle_order.hpp"
#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/pool/paged_space.hpp"

namespace cistern {

class Virtual final : public Pool {
 public:
  struct Options {
    std::size_t page = std::size_t{2} << 20;  // what is mapped and unmapped; a power of two
    std::size_t max_bytes = unbounded;        // of the pages that are mapped, at most
    // What is mapped is at most (1 + idle_ratio) times the peak of the pages in which something
    // lived, or those in which something lives.
    double idle_ratio = 0;
    std::size_t addresses = 0;  // reserved at a time; 0 for 8 times the device's memory
    // Addresses kept free behind a block of a page or more, to grow into, where there is place.
    std::size_t room = 0;
  };

  /// Throws std::invalid_argument if `upstream` is null or no device with virtual memory, or if an
  /// option is out of range. Reserves its addresses at the first request.
  ///
  /// A request costs O(1) where its pages are mapped, and a system call for every run of pages that
  /// are not; as many idle pages are unmapped elsewhere. A free is O(1). (Both look at a bit a
  /// page.) Calls to the device are made under the pool's lock.
  Virtual(Ref<Resource> upstream, const Options& options);
  explicit Virtual(Ref<Resource> upstream) : Virtual(std::move(upstream), Options{}) {}

  /// Setting the bound: returns the former value, and unmaps idle pages at once if it was lowered.
  std::size_t set_max_bytes(std::size_t max_bytes) noexcept;
  [[nodiscard]] std::size_t max_bytes() const noexcept;

  using Pool::deallocate;
  using Pool::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  /// Under one lock. What was mapped for a batch that fails is unmapped as idle pages are.
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  /// A block grows into the addresses behind it, as far as they are free.
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  /// The idle pages.
  [[nodiscard]] std::vector<BucketStats> buckets() const override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::size_t trimmable() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  ~Virtual() override;
  static VirtualMemory& memory_of(Resource* upstream, const Options& options);

  Error fail(Errc code, std::size_t requested, std::size_t available = 0) const noexcept;
  [[nodiscard]] std::size_t most_a_device_has() const noexcept;

  // Under the lock.
  Expected<PagedChunk*> obtain(const Request& request) noexcept;
  Expected<PagedChunk*> place(std::size_t bytes, std::size_t room, const Request& request) noexcept;
  Expected<PagedChunk*> claim(std::size_t bytes, std::size_t room, const Request& request) noexcept;
  bool add_addresses(std::size_t needed) noexcept;
  Expected<bool> back(PagedChunk& chunk) noexcept;
  Expected<void> map(const PagedSpace::Pages& pages, Stream stream) noexcept;
  bool unmap_idle(std::size_t pages) noexcept;
  void enforce_bounds() noexcept;
  [[nodiscard]] std::size_t most_pages() const noexcept;
  [[nodiscard]] std::size_t mapped_pages() const noexcept;
  Block hand_out(PagedChunk& chunk, std::size_t requested) noexcept;
  void count_idle() noexcept;
  void trim_to(std::size_t keep_bytes) noexcept override;
  void abandoned() noexcept override;

  VirtualMemory& memory_;
  const std::size_t unit_;
  const std::size_t addresses_;
  const std::size_t room_;
  const double idle_ratio_;

  mutable std::mutex mutex_;  // guards all below
  PagedSpace space_;
  Handover handover_{device().stream_order()};
  IdleOrder idle_order_{device().stream_order()};
  Stats stats_;  // this stage's own
  std::size_t max_bytes_;
  std::size_t work_peak_ = 0;  // of the open pages, that of the last trim on
  bool abandoned_ = false;
};

}  // namespace cistern
