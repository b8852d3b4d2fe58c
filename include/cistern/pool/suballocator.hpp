// The bookkeeping of a coalescing pool: regions, the chunks that tile them, and where holes are
// found. It splits a hole for a block, merges a block with its neighbours when it is freed, and
// knows which regions are wholly idle. It never calls an upstream and never touches the memory.
//
// Holes belong to the stream that last used their memory, and to the size class of their region.
// Two holes that touch merge at once if they are of one stream, or if streams need not wait for
// each other; else those of different streams do so where they must, and the stream whose hole the
// whole becomes is made to wait.
//
// Not thread-safe: the pool's lock guards it. Nothing here throws but the constructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cistern/core/slab.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/pool/chunk.hpp"
#include "cistern/pool/hole_index.hpp"

namespace cistern {

class Suballocator {
 public:
  /// What a block must be like.
  struct Want {
    std::size_t bytes = 0;      // not zero
    std::size_t alignment = 1;  // a power of two
    std::size_t size_class = 0;
    std::size_t least_rest = 1;  // what is left of a hole stays one if it has so many bytes
    std::size_t region = 0;      // bytes of a region that would be obtained for it
    Stream stream{};
    bool shares_streams = false;  // holes of other streams will do
  };

  struct Options {
    std::size_t size_classes = 1;
    Placement placement = Placement::best;
    bool joins = false;            // regions that touch become one
    bool extends = false;          // regions can be extended
    bool merges_streams = false;   // holes that touch merge at once, whatever their streams
    StreamOrder* order = nullptr;  // the device's, where it has queues
  };

  /// `owner` is the stage whose nodes the chunks are. Throws std::bad_alloc.
  Suballocator(const Resource* owner, const Options& options);

  // --- the fast path ---

  /// A block from a hole of the stream and class that are wanted, or null: O(1) or O(log holes), as
  /// the placement says. The caller begins its life.
  [[nodiscard]] Chunk* take(const Want& want) noexcept {
    const StreamHoles* holes = holes_of(want.stream);
    if (!holes->is_known) return nullptr;
    Chunk* hole = find(holes->of_class[want.size_class], want);
    if (hole == nullptr && (!has_many_streams_ || !want.shares_streams))
      hole = find_last_resort(holes->last_resort[want.size_class], want);
    return hole != nullptr ? carve(*hole, want) : nullptr;
  }

  /// Makes a hole of a block whose life has ended, last used on `stream`.
  void put(Chunk* block, Stream stream) noexcept;

  // --- the slow path ---

  /// The same from the holes of any stream: of those beside live blocks, before the last resorts of
  /// the stream that wants it, before those of the others.
  [[nodiscard]] Chunk* take_of_any_stream(const Want& want) noexcept;

  /// The same from the holes of all classes, of the streams that will do.
  [[nodiscard]] Chunk* take_of_another_class(const Want& want) noexcept;

  /// From the end of `region`, if a hole that is large enough ends it.
  [[nodiscard]] Chunk* take_at_end(Region& region, const Want& want) noexcept;

  /// From this hole.
  [[nodiscard]] Chunk* take_in(Chunk& hole, const Want& want) noexcept;

  /// What `region` must have in all so that what is wanted fits at its end.
  [[nodiscard]] static std::size_t bytes_to_hold(const Region& region, const Want& want) noexcept;

  /// Merges holes that touch but are of different streams: they become `stream`'s, which is made to
  /// wait for the others. False if nothing was merged. O(chunks).
  bool merge_streams(Stream stream) noexcept;

  /// From now on the holes of `stream` are found by themselves. Without it they count as another
  /// stream's to everyone. May allocate; failure only costs the preference.
  void know(Stream stream) noexcept;

  /// Takes a region in and returns the hole that it is or has become part of. Null, and nothing has
  /// happened, if the host has no memory for the records.
  Chunk* adopt(const Block& upstream, std::uintptr_t start, std::size_t size_class,
               Stream stream) noexcept;

  /// `region` is as large as `upstream` says now; what it has more is a hole, or part of the one
  /// that ended it where what is wanted may be taken from there. False, and nothing has happened
  /// but `upstream`'s being noted, if the host has no memory for the record.
  bool extend(Region& region, const Block& upstream, const Want& want) noexcept;

  /// Takes an idle region out; `recycle` ends it. False if the host has no memory to split the hole
  /// it is part of, or the streams of its holes cannot be waited for.
  bool remove(Region& region) noexcept;
  void recycle(Region& region) noexcept { regions_.put(&region); }

  /// Makes `block` reach to `bytes`, if a hole behind it is large enough.
  bool grow(Chunk& block, std::size_t bytes) noexcept;

  /// Makes [start, start + bytes) a block; for restoring a recorded state. Null if that is not
  /// within one hole, or if there is no memory.
  Chunk* take_at(std::uintptr_t start, std::size_t bytes) noexcept;

  /// The region idle for longest, or null; and the next of them.
  [[nodiscard]] Region* oldest_idle() const noexcept { return idle_.oldest(); }
  [[nodiscard]] static Region* next_idle(const Region* region) noexcept {
    return IdleList::newer(region);
  }

  /// The region of this class that ends in the largest hole and may be extended, or null.
  [[nodiscard]] Region* most_extensible(std::size_t size_class) const noexcept;

  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t idle_bytes() const noexcept { return idle_bytes_; }
  [[nodiscard]] std::size_t largest_hole() const noexcept;
  /// Of one class, of every stream or only of the default one.
  [[nodiscard]] std::size_t largest_hole(std::size_t size_class,
                                         bool of_every_stream) const noexcept;

  template <class Visit>
  void each_hole(Visit&& visit) const {
    for (const auto& stream : streams_)
      stream->each_index([&](const HoleIndex& holes) { holes.each(visit); });
  }
  template <class Visit>
  void each_block(Visit&& visit) const {
    chunks_.each([&](const Chunk& chunk) {
      if (chunk.is_live()) visit(chunk);
    });
  }
  template <class Visit>
  void each_region(Visit&& visit) const {
    by_address_.each(visit);
  }

  [[nodiscard]] std::string validate() const;

 private:
  struct StreamHoles {
    explicit StreamHoles(const Options& options)
        : of_class(options.size_classes, HoleIndex(options.placement)), last_resort(of_class) {}
    [[nodiscard]] bool empty() const noexcept;
    template <class Visit>
    void each_index(Visit&& visit) const {
      for (const HoleIndex& index : of_class)
        visit(index);
      for (const HoleIndex& index : last_resort)
        visit(index);
    }

    std::uint64_t stream_id = 0;
    bool is_known = true;  // else the holes of all streams that have no index of their own
    std::vector<HoleIndex> of_class;
    std::vector<HoleIndex> last_resort;  // those that a packed placement spares
  };
  /// What a walk over all chunks has counted.
  struct Found {
    std::size_t holes = 0;
    std::size_t seams = 0;
    std::size_t touches = 0;  // of regions by blocks
  };
  const char* validate_span(const Region& head, Found& found) const noexcept;
  [[nodiscard]] std::string validate_indexes(std::size_t holes) const;

  struct ByAddress {
    static bool before(const Region& a, const Region& b) noexcept { return a.start < b.start; }
  };
  using Regions = IntrusiveTree<Region, &Region::by_address, ByAddress>;
  using IdleList = IntrusiveList<Region, &Region::by_idleness>;

  [[nodiscard]] StreamHoles* holes_of(Stream stream) noexcept {
    return stream.id == last_asked_->stream_id && last_asked_->is_known ? last_asked_
                                                                        : search_holes_of(stream);
  }
  StreamHoles* search_holes_of(Stream stream) noexcept;
  bool make_known(Stream stream) noexcept;

  /// In order of address; `visit` may absorb what is behind the chunk it is called with.
  template <class Visit>
  void each_chunk(Visit&& visit) {
    by_address_.each([&](Region& region) {
      if (region.joined_before != nullptr) return;
      for (Chunk* chunk = region.first; chunk != nullptr; chunk = chunk->after)
        visit(*chunk);
    });
  }

  static Chunk* find(const HoleIndex& holes, const Want& want) noexcept;
  static Chunk* find_last_resort(const HoleIndex& holes, const Want& want) noexcept;
  static Chunk* find_in_class(const StreamHoles& holes, std::size_t size_class,
                              const Want& want) noexcept;
  static Chunk* end_for(const Region& region, const Want& want) noexcept;
  Chunk* carve(Chunk& hole, const Want& want) noexcept;

  void insert_hole(Chunk* hole) noexcept;
  void erase_hole(Chunk* hole) noexcept;
  Chunk* make_hole(Chunk* block, Stream stream) noexcept;
  Chunk* hole_of(Region& region) noexcept;
  void count_block(const Chunk& block) noexcept;
  void discount_block(const Chunk& block) noexcept;
  void absorb_hole_after(Chunk& hole, Stream stream) noexcept;
  void move_seam(Chunk& hole, std::uintptr_t to) noexcept;
  void file_anew(Chunk* chunk) noexcept;
  void count_seams(const Chunk* hole, bool is_inserted) noexcept;

  Chunk* split_off(Chunk& chunk, std::size_t bytes) noexcept;
  void absorb_after(Chunk& chunk) noexcept;
  void set_end(Chunk& last) noexcept;
  void join(Region& before, Region& after) noexcept;
  static Region* region_at(Region* region, std::uintptr_t start) noexcept;
  [[nodiscard]] bool merges(const Chunk* hole, const Chunk& with) const noexcept {
    return is_hole(hole) && (options_.merges_streams || hole->stream.id == with.stream.id);
  }
  static bool is_hole(const Chunk* chunk) noexcept { return chunk != nullptr && chunk->is_hole(); }

  [[nodiscard]] bool is_last_resort(const Chunk& hole) const noexcept {
    return options_.placement == Placement::packed && hole.after == nullptr &&
           (options_.extends || hole.before == nullptr);
  }

  const Options options_;
  Slab<Chunk> chunks_;
  Slab<Region> regions_;
  Regions by_address_;
  IdleList idle_;
  std::vector<std::unique_ptr<StreamHoles>> streams_;  // the first is of the unknown ones
  StreamHoles* last_asked_ = nullptr;                  // of `streams_`
  bool has_many_streams_ = false;                      // until there are two, no two holes touch
  std::size_t bytes_ = 0;                              // of all regions
  std::size_t idle_bytes_ = 0;                         // of the idle ones
  std::size_t seams_ = 0;                              // places where two holes touch
};

}  // namespace cistern
