// Where blocks lie in ranges of addresses whose pages cost memory only while something lives there:
// the placement of `virtual`, and the record of which pages are mapped. It calls no device.
//
// A page is open while a block touches it; the rest of an open page is free for others, and costs
// nothing more. So a block is put where it opens the fewest pages, and flush with a neighbour, so
// that what stays free stays in one piece with the pages beside it. Not thread-safe: the pool's
// lock guards it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/core/stats.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/pool/page_map.hpp"
#include "cistern/pool/size_bins.hpp"

namespace cistern {

struct PagedRange;

/// A block, or a hole between two. Holes that touch are one, but for the room that is kept behind a
/// block: a hole that only this block can use.
struct PagedChunk : Node {
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  std::size_t requested = 0;   // of a block
  std::size_t idle_pages = 0;  // of a hole: those that are mapped though nothing lives there
  Stream stream;               // of a block: the one it was requested for
  PagedRange* range = nullptr;
  PagedChunk* before = nullptr;  // by address
  PagedChunk* after = nullptr;
  bool is_room = false;
  BinLinks<PagedChunk> by_length;
  BinLinks<PagedChunk> by_open;  // by the bytes free in open pages, on the better side
  ListLinks<PagedChunk> by_age;  // while it has idle pages
  PagedChunk* next_free = nullptr;

  [[nodiscard]] std::uintptr_t end() const noexcept { return start + bytes; }
};

struct PagedRange {
  explicit PagedRange(const AddressRange& range)
      : addresses(range), mapped(range.bytes / range.page) {}

  AddressRange addresses;
  PageMap mapped;
  PagedChunk* first = nullptr;  // by address
};

class PagedSpace {
 public:
  /// Neighbouring pages, for a call to the device.
  struct Pages {
    PagedRange* range = nullptr;
    std::byte* start = nullptr;
    std::size_t bytes = 0;

    [[nodiscard]] bool empty() const noexcept { return bytes == 0; }
  };

  /// Sizes are powers of two. Blocks are multiples of `unit`.
  PagedSpace(const Resource* owner, std::size_t page, std::size_t unit) noexcept
      : chunks_(owner), page_(page), unit_(unit) {}

  /// Adds addresses, none of which is mapped. False if the host has no memory for the records.
  bool add(const AddressRange& addresses) noexcept;

  /// A block of `bytes`, a multiple of the unit, at `alignment`, at least the unit; null if no hole
  /// is large enough or the host has no memory for a record. Its pages may not all be mapped.
  /// Behind it `room` bytes, rounded up to pages, are kept free for it. O(1).
  PagedChunk* claim(std::size_t bytes, std::size_t alignment, std::size_t room) noexcept;

  /// Makes a block larger by so many bytes where it lies; false if something is in the way.
  bool extend(PagedChunk& block, std::size_t more) noexcept;
  /// Takes the last such extension back.
  void shorten(PagedChunk& block, std::size_t less) noexcept;

  /// A block ends. Those of its pages that nothing else touches are idle now.
  void release(PagedChunk& block) noexcept;

  /// The first pages of a block that are not mapped yet; none if all are.
  [[nodiscard]] Pages unmapped_of(const PagedChunk& block) const noexcept;
  [[nodiscard]] std::size_t unmapped_pages_of(const PagedChunk& block) const noexcept;
  void set_mapped(const Pages& pages) noexcept;

  /// Neighbouring idle pages, `most` at most, of the hole that has been there for longest, which
  /// are counted as unmapped from now on; none if no page is idle.
  Pages take_idle(std::size_t most) noexcept;

  [[nodiscard]] std::size_t page() const noexcept { return page_; }
  [[nodiscard]] std::size_t open_pages() const noexcept { return pages_ - closed_; }
  [[nodiscard]] std::size_t idle_pages() const noexcept { return idle_; }

  /// The largest block that opens no page, or one nearly as large.
  [[nodiscard]] std::size_t largest_in_open_pages() const noexcept { return by_open_.largest(); }

  /// Calls `visit(chunk)` for every block, or for every hole.
  template <class Visit>
  void each_block(Visit&& visit) const {
    chunks_.each([&](const PagedChunk& chunk) {
      if (chunk.is_live()) visit(chunk);
    });
  }
  template <class Visit>
  void each_hole(Visit&& visit) const {
    for (const auto& range : ranges_) {
      for (const PagedChunk* each = range->first; each != nullptr; each = each->after) {
        if (!each->is_live()) visit(*each);
      }
    }
  }
  template <class Visit>
  void each_range(Visit&& visit) const {
    for (const auto& range : ranges_)
      visit(range->addresses);
  }

  [[nodiscard]] std::string validate() const;

 private:
  /// What a hole is made of: bytes in the open page it begins in, pages that are not open, bytes in
  /// the open page it ends in. A hole without such pages is all head.
  struct Shape {
    std::size_t head = 0;
    std::size_t pages = 0;
    std::size_t tail = 0;

    [[nodiscard]] std::size_t open() const noexcept { return head > tail ? head : tail; }
  };

  /// Where in which hole a block goes.
  struct Spot {
    PagedChunk* hole = nullptr;
    std::uintptr_t start = 0;
  };

  [[nodiscard]] std::uintptr_t page_up(std::uintptr_t address) const noexcept {
    return (address + page_ - 1) & ~(page_ - 1);
  }
  [[nodiscard]] std::uintptr_t page_down(std::uintptr_t address) const noexcept {
    return address & ~(page_ - 1);
  }
  [[nodiscard]] Shape shape_of(const PagedChunk& hole) const noexcept;
  [[nodiscard]] PageMap::Run closed_pages_of(const PagedChunk& hole) const noexcept;
  [[nodiscard]] PageMap::Run pages_of(const PagedChunk& block) const noexcept;
  [[nodiscard]] PageMap::Run pages_between(const PagedRange& range, std::uintptr_t start,
                                           std::uintptr_t end) const noexcept;
  [[nodiscard]] Pages as_pages(PagedRange& range, PageMap::Run run) const noexcept;
  [[nodiscard]] std::size_t mapped_between(const PagedRange& range, std::uintptr_t start,
                                           std::uintptr_t end) const noexcept;

  [[nodiscard]] Spot find(std::size_t bytes, std::size_t alignment) const noexcept;
  [[nodiscard]] Spot find_with_room(std::size_t bytes, std::size_t alignment,
                                    std::size_t room) const noexcept;
  [[nodiscard]] Spot find_in_open_pages(std::size_t bytes) const noexcept;
  [[nodiscard]] Spot find_beside_open_pages(std::size_t bytes) const noexcept;
  [[nodiscard]] Spot find_new_pages(std::size_t bytes) const noexcept;
  [[nodiscard]] Spot flush(PagedChunk* hole, std::size_t bytes, bool at_end) const noexcept;

  void put_hole(PagedChunk& hole, std::size_t idle_pages) noexcept;
  void remove_hole(PagedChunk& hole) noexcept;
  PagedChunk* cut_out(const Spot& spot, std::size_t bytes, std::size_t room,
                      std::array<PagedChunk*, 3>& records) noexcept;
  static PagedChunk* split_off(PagedChunk& chunk, std::uintptr_t at, PagedChunk& rest) noexcept;
  void absorb_next(PagedChunk& chunk) noexcept;

  [[nodiscard]] const char* broken_law_in(const PagedRange& range) const;

  Slab<PagedChunk> chunks_;
  PagedChunk* spare_ = nullptr;  // the record of a hole that was filled by growing, for `shorten`
  std::vector<std::unique_ptr<PagedRange>> ranges_;
  using ByLength = SizeBins<PagedChunk, &PagedChunk::by_length>;
  using ByOpen = SizeBins<PagedChunk, &PagedChunk::by_open>;

  ByLength by_length_;  // all holes but rooms
  ByOpen by_open_;      // those of them with bytes in open pages
  IntrusiveList<PagedChunk, &PagedChunk::by_age> with_idle_pages_;
  std::size_t pages_ = 0;   // of all ranges
  std::size_t closed_ = 0;  // those of them in which nothing lives
  std::size_t idle_ = 0;    // those of them that are mapped
  const std::size_t page_;
  const std::size_t unit_;
};

}  // namespace cistern
