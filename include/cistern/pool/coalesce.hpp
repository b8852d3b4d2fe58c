// The pool that splits and joins: it takes large regions from its upstream, cuts blocks out of them
// and merges what is freed with its neighbours at once. What keeps its peak close to the peak of
// what is live: an exact best fit, regions of their own for small, middle and huge sizes, and that
// regions which are wholly idle go back before it grows beyond the peak of the work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/core/handover.hpp"
#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"
#include "cistern/pool/restorable.hpp"
#include "cistern/pool/returns.hpp"
#include "cistern/pool/suballocator.hpp"

namespace cistern {

enum class Growth : std::uint8_t {
  fitted,    // for small requests, a whole number of them in at most what the class says; else as
             // large as the request
  exact,     // the same, but exactly what the class says
  fixed,     // a multiple of what the class says
  doubling,  // as `exact`, but at least as large as all regions so far together
};

enum class StreamSharing : std::uint8_t {
  shared,    // a stream's own holes first, then those of the others
  separate,  // a stream's memory is its own, wherever it is freed, until regions go back upstream
};

class Coalesce final : public Pool, public RestorablePool {
 public:
  static constexpr double no_ratio = std::numeric_limits<double>::infinity();

  /// Requests of at most `up_to` bytes, and of more than the class before takes, share regions that
  /// no other class uses (unless the upstream refuses, see `borrow`).
  struct SizeClass {
    std::size_t up_to = unbounded;
    std::size_t region = 0;      // bytes of a region for requests that are small beside it ...
    std::size_t region_for = 0;  // ... that is, for less than so many bytes
    std::size_t least_rest = 1;  // what is left of a hole stays one if it has so many bytes
  };

  struct Options {
    // Small blocks live long or fall in numbers; among large ones each leaves a hole that no large
    // one fits. Huge blocks take whole regions.
    std::vector<SizeClass> classes{};  // none listed: `default_classes()`
    std::size_t granule = 0;      // sizes are rounded up to a multiple; 0: the device's alignment
    std::size_t region_step = 0;  // and those of regions; 0: the device's granularity
    Growth growth = Growth::fitted;
    Placement place = Placement::packed;
    StreamSharing streams = StreamSharing::shared;
    // What is left of a hole also stays one if it is so many times the request.
    double rest_ratio = no_ratio;
    // A request that the upstream refuses is served from another class, if it can be.
    bool borrow = true;
    // Before the pool grows beyond (1 + idle_ratio) times the peak of the live bytes, idle regions
    // go back.
    double idle_ratio = 0.02;
    std::size_t max_idle = unbounded;  // bytes of idle regions, at most
  };

  static std::vector<SizeClass> default_classes();

  /// Throws std::invalid_argument if `upstream` is null or an option is out of range: classes rise
  /// and the last has no bound; `granule` and `region_step` are 0 or powers of two.
  Coalesce(Ref<Resource> upstream, const Options& options);
  explicit Coalesce(Ref<Resource> upstream) : Coalesce(std::move(upstream), Options{}) {}

  /// Setting the bounds returns the former value; `set_max_idle` gives back at once.
  std::size_t set_max_idle(std::size_t bytes) noexcept;
  double set_idle_ratio(double ratio) noexcept;

  /// Bytes of the largest hole, and of all of them, idle regions included.
  [[nodiscard]] std::size_t largest_hole() const noexcept;
  [[nodiscard]] std::size_t hole_bytes() const noexcept;

  [[nodiscard]] Expected<std::vector<Block>> restore(
      std::span<const RecordedRegion> regions, std::span<const RecordedBlock> blocks) override;
  bool give_back(std::uintptr_t address) noexcept override;

  using Stage::deallocate;
  using Stage::reset_peaks;
  /// O(1) or O(log holes) where a hole fits; see `Placement`.
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  /// Takes what holes there are under one lock, then obtains regions for one after the other of
  /// those that are missing. A batch that fails changes no figure of this stage but `failures` and
  /// what is idle, which is no more than before.
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  /// Grows into the hole behind the block.
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  /// The holes, by powers of two.
  [[nodiscard]] std::vector<BucketStats> buckets() const override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  /// A lower bound where regions can be extended or joined, streams have holes of their own, or a
  /// pool above would give blocks back.
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::size_t trimmable() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  using Want = Suballocator::Want;
  using Leaving = cistern::Leaving<Region>;

  // What a miss asks of the upstream: a whole region, and the least that will do.
  struct Ask {
    std::size_t whole = 0;
    std::size_t least = 0;
  };

  // What the slow path came to: a block that is not handed out yet.
  struct Found {
    Expected<Chunk*> chunk;
    bool is_hit = false;      // the upstream was not asked
    std::size_t growing = 0;  // what it was asked for: still counted as growing
  };

  static Options checked(Options options, const DeviceLimits& limits);
  [[nodiscard]] std::size_t class_of(std::size_t bytes) const noexcept;
  [[nodiscard]] std::size_t region_for(std::size_t bytes, std::size_t size_class) const noexcept;
  [[nodiscard]] std::optional<Want> want_for(const Request& request) const noexcept;
  [[nodiscard]] std::optional<Ask> ask_for(const Want& want) const noexcept;

  // Under the lock.
  Block hand_out(Chunk& chunk, const Request& request) noexcept;
  void hand_out(std::span<const Request> requests, std::span<Block> blocks,
                std::size_t misses) noexcept;
  Chunk* take_slowly(const Want& want) noexcept;
  // Null, and a hole again, where the stream cannot be made to wait for the one that used it last.
  Chunk* make_ready(Chunk* chunk, Stream stream) noexcept {
    if (chunk == nullptr || handover_.make_ready(chunk->stream, stream)) [[likely]]
      return chunk;
    parts_.put(chunk, chunk->stream);
    return nullptr;
  }
  [[nodiscard]] std::uintptr_t start_of(const Block& block) noexcept;
  void leave(Region& region, Leaving& leaving) noexcept;
  void release_idle(std::size_t keep_bytes, Leaving& leaving,
                    const Region* kept = nullptr) noexcept;
  void enforce_idle_ratio(const Want& want, Leaving& leaving) noexcept;
  [[nodiscard]] bool is_over() const noexcept;

  // Outside it.
  Found miss(const Request& request) noexcept;
  Expected<void> give_up(std::span<const Request> requests, std::span<Block> blocks,
                         std::size_t place, Error error, std::size_t idle_before) noexcept;
  Expected<Chunk*> refused_by_upstream(const Request& request) noexcept;
  Expected<Chunk*> climb(const Ask& ask, const Request& request, const Want& want) noexcept;
  Expected<Chunk*> obtain(std::size_t bytes, const Request& request, const Want& want) noexcept;
  Expected<Chunk*> extend_region(const Request& request, const Want& want) noexcept;
  Expected<Chunk*> new_region(std::size_t bytes, const Request& request, const Want& want) noexcept;
  Expected<Chunk*> take_any_hole(const Request& request, const Want& want) noexcept;
  bool give_back_idle(std::size_t bytes) noexcept;
  void hold_to_max_idle() noexcept;
  void send_upstream(const Leaving& leaving) noexcept;
  void trim_to(std::size_t keep_bytes) noexcept override;
  void abandoned() noexcept override;

  const Options options_;
  const bool is_address_;     // the device's memory is
  mutable std::mutex mutex_;  // guards all below
  Handover handover_;
  Suballocator parts_;
  Stats stats_;                // this stage's own
  std::uintptr_t next_start_;  // of a region whose memory has no address
  std::size_t max_idle_;
  double idle_ratio_;
  bool abandoned_ = false;
  std::size_t work_peak_ = 0;  // peak of the live granted bytes, that of the last trim on
  std::size_t growing_ = 0;    // bytes that are being asked of the upstream
  Returns returns_{mutex_};
};

}  // namespace cistern
