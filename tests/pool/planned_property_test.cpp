// Random programs of cycles that deviate at random: what is live never overlaps and keeps what was
// written to it, and the figures are those of a plain model, whatever the pool knows of the cycle.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/pool/planned.hpp"
#include "support/cycles.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

struct Level {
  std::size_t current = 0;
  std::size_t peak = 0;

  void rise(std::size_t by) { peak = std::max(peak, current += by); }
  void fall(std::size_t by) { current -= by; }
};

/// A caller that checks what it is given, and counts.
class Model {
 public:
  explicit Model(Planned& pool)
      : pool_(pool), limits_(pool.device().limits()), unreserved_(pool.stats().reserved.current) {}

  struct Held {
    Block block;
    bool outlives_reset = false;
    std::uint64_t born = 0;  // the cycle
    std::size_t number = 0;  // in it
    std::uint64_t dies = 0;  // the cycle
    unsigned char pattern = 0;
  };
  std::vector<Held> held;

  void allocate(const Request& request, bool outlives_reset, std::size_t number,
                std::uint64_t dies) {
    const Expected<Block> block =
        outlives_reset ? pool_.try_allocate_held(request) : pool_.try_allocate(request);
    ASSERT_TRUE(block);
    ASSERT_EQ(block->empty(), request.bytes == 0);
    if (block->empty()) return;
    ASSERT_GE(block->bytes, request.bytes);
    ASSERT_EQ(block->requested, request.bytes);
    ASSERT_TRUE(is_aligned(*block, std::max(request.alignment, limits_.alignment), limits_));
    ASSERT_TRUE(pool_.is_live(*block));
    const std::uintptr_t start = start_of(*block);
    const auto after = places_.lower_bound(start);
    ASSERT_TRUE(after == places_.end() || start + block->bytes <= after->first) << "overlaps";
    ASSERT_TRUE(after == places_.begin() || std::prev(after)->second <= start) << "overlaps";
    places_[start] = start + block->bytes;
    ++allocations_;
    blocks_.rise(1);
    requested_.rise(block->requested);
    granted_.rise(block->bytes);
    held.push_back({*block, outlives_reset, pool_.cycles(), number, dies, ++pattern_});
    if (limits_.host_addressable) std::memset(block->memory, pattern_, block->bytes);
    check();
  }

  void free(std::size_t index) {
    const Held former = end(index);
    ASSERT_TRUE(pool_.deallocate(former.block));
    ++frees_;
    ASSERT_FALSE(pool_.is_live(former.block));
    stale_ = former.block;
    check();
  }

  void grow(std::size_t index, std::size_t bytes) {
    Block& block = held[index].block;
    const Expected<Block> grown = pool_.try_grow(block, bytes);
    if (!grown) return check();
    ASSERT_EQ(start_of(*grown), start_of(block));
    ASSERT_GE(grown->bytes, bytes);
    ASSERT_FALSE(pool_.is_live(block));
    requested_.rise(grown->requested - block.requested);
    granted_.rise(grown->bytes - block.bytes);
    places_[start_of(block)] = start_of(block) + grown->bytes;
    if (limits_.host_addressable) std::memset(grown->memory, held[index].pattern, grown->bytes);
    block = *grown;
    check();
  }

  void free_stale() {
    if (stale_.empty()) return;
    ASSERT_FALSE(pool_.deallocate(stale_));
    ++refused_;
    check();
  }

  void reset() {
    std::size_t ended = 0;
    for (std::size_t i = held.size(); i-- > 0;) {
      if (held[i].outlives_reset) continue;
      stale_ = end(i).block;
      ++ended;
    }
    frees_ += ended;
    ASSERT_EQ(pool_.reset(), ended);
    check();
  }

  void check() {
    ASSERT_EQ(pool_.validate(), "");
    const Stats stats = pool_.stats();
    ASSERT_EQ(stats.allocations, allocations_);
    ASSERT_EQ(stats.frees, frees_);
    ASSERT_EQ(stats.refused_frees, refused_);
    ASSERT_EQ(stats.live_blocks.current, blocks_.current);
    ASSERT_EQ(stats.live_blocks.peak, blocks_.peak);
    ASSERT_EQ(stats.live_requested.current, requested_.current);
    ASSERT_EQ(stats.live_requested.peak, requested_.peak);
    ASSERT_EQ(stats.live_granted.current, granted_.current);
    ASSERT_EQ(stats.live_granted.peak, granted_.peak);
    cached_peak_ = std::max(cached_peak_, stats.cached.current);
    ASSERT_GE(stats.cached.peak, cached_peak_);
    ASSERT_EQ(stats.live_granted.current + stats.cached.current,
              stats.reserved.current - unreserved_);
    if (stats.pools == 1) {
      ASSERT_EQ(stats.hits + stats.misses, allocations_);
      ASSERT_EQ(stats.misses, pool_.counts().passed_on);
    }
    ASSERT_EQ(pool_.counts().served + pool_.counts().passed_on, allocations_);
    ASSERT_EQ(pool_.outstanding().blocks, blocks_.current);
  }

 private:
  [[nodiscard]] static std::uintptr_t start_of(const Block& block) {
    return reinterpret_cast<std::uintptr_t>(block.memory) + block.offset;
  }

  Held end(std::size_t index) {
    const Held former = held.at(index);
    held[index] = held.back();
    held.pop_back();
    expect_kept(former);
    places_.erase(start_of(former.block));
    blocks_.fall(1);
    requested_.fall(former.block.requested);
    granted_.fall(former.block.bytes);
    return former;
  }

  void expect_kept(const Held& former) const {
    if (!limits_.host_addressable) return;
    const auto* bytes = static_cast<const unsigned char*>(former.block.memory);
    for (std::size_t i = 0; i < former.block.bytes; ++i)
      ASSERT_EQ(bytes[i], former.pattern) << "byte " << i << " was overwritten";
  }

  Planned& pool_;
  const DeviceLimits& limits_;
  const std::size_t unreserved_;
  std::map<std::uintptr_t, std::uintptr_t> places_;
  Level blocks_;
  Level requested_;
  Level granted_;
  std::size_t allocations_ = 0;
  std::size_t frees_ = 0;
  std::size_t refused_ = 0;
  std::size_t cached_peak_ = 0;
  unsigned char pattern_ = 0;
  Block stale_;
};

/// What a cycle does unless it deviates.
struct Program {
  struct Want {
    Request request;
    bool outlives_reset = false;
    std::uint64_t cycles = 0;      // that its block lives on
    std::size_t freed_behind = 0;  // the allocation of its last cycle behind which it is freed
  };
  std::vector<Want> wants;

  explicit Program(testing::Random& random) {
    const std::size_t number = 2 + random.below(14);
    for (std::size_t i = 0; i < number; ++i) {
      Want want{.request = {.bytes = random.size(12)}};
      if (random.chance(10)) want.request.alignment = std::size_t{1} << random.below(13);
      if (random.chance(10)) want.request.stream.id = random.below(2);
      want.outlives_reset = random.chance(15);
      if (random.chance(20)) want.cycles = random.chance(80) ? 1 : 2;
      want.freed_behind = want.cycles == 0 ? i + random.below(number - i) : random.below(number);
      wants.push_back(want);
    }
  }
};

struct Ways {
  unsigned deviating = 30;  // percent of the cycles
  unsigned resets = 20;
  bool checks_owner = false;
};

class RandomRun {
 public:
  RandomRun(Planned& pool, std::uint64_t seed, const Ways& ways)
      : pool_(pool), random_(seed), ways_(ways), model_(pool) {}

  void run() {
    pool_.check_owner(ways_.checks_owner);
    Program program(random_);
    const bool ends_by_reset = random_.chance(ways_.resets * 2);
    for (int cycle = 0; cycle < 60 && !::testing::Test::HasFatalFailure(); ++cycle) {
      if (random_.chance(3)) program = Program(random_);
      one_cycle(program, random_.chance(ways_.deviating) ? 1 + random_.below(2) : 0);
      if (random_.chance(ends_by_reset ? 90 : ways_.resets / 4)) {
        model_.reset();
      } else {
        pool_.cycle();
        model_.check();
      }
    }
    while (!model_.held.empty() && !::testing::Test::HasFatalFailure())
      model_.free(random_.below(model_.held.size()));
  }

 private:
  void one_cycle(const Program& program, std::uint64_t deviations) {
    const std::size_t number = program.wants.size();
    std::vector<std::uint64_t> places;
    for (std::uint64_t i = 0; i < deviations; ++i)
      places.push_back(random_.below(number));
    for (std::size_t i = 0; i < number && !::testing::Test::HasFatalFailure(); ++i) {
      const Program::Want& want = program.wants[i];
      const bool deviates = std::ranges::count(places, i) > 0;
      const std::uint64_t how = deviates ? random_.below(10) : 10;
      if (how == 0) continue;  // left out
      if (how == 1) allocate({.request = {.bytes = random_.size(12)}}, number);
      if (how == 2) model_.allocate({.bytes = 0}, false, 0, 0);
      if (how == 3) model_.free_stale();
      if (how == 4) pool_.trim(random_.chance(50) ? 0 : random_.size(14));
      if (how == 5) (void)pool_.pin();
      if (how == 6) pool_.unpin();
      Program::Want changed = want;
      if (how == 7) changed.request.bytes += random_.size(10);
      if (how == 8) changed.cycles += random_.chance(90) ? 1 + random_.below(2) : 1000;
      allocate(changed, i);
      if (how == 9 && !model_.held.empty())
        model_.grow(random_.below(model_.held.size()), random_.size(12));
      free_behind(program, i, how == 8);
    }
  }

  void allocate(const Program::Want& want, std::size_t number) {
    model_.allocate(want.request, want.outlives_reset, number, pool_.cycles() + want.cycles);
  }

  // Blocks whose time has come, in the order of their numbers, or in another.
  void free_behind(const Program& program, std::size_t place, bool in_other_order) {
    std::vector<std::pair<std::size_t, std::uint64_t>> due;
    for (const Model::Held& held : model_.held) {
      const std::size_t behind =
          held.number < program.wants.size() ? program.wants[held.number].freed_behind : 0;
      const std::uint64_t now = pool_.cycles();
      if (held.dies < now || (held.dies == now && behind <= place))
        due.emplace_back(held.number, held.born);
    }
    std::ranges::sort(due);
    if (in_other_order) std::ranges::reverse(due);
    for (const auto& [number, born] : due) {
      if (::testing::Test::HasFatalFailure()) return;
      const auto found =
          std::ranges::find_if(model_.held, [&, n = number, b = born](const auto& held) {
            return held.number == n && held.born == b;
          });
      model_.free(static_cast<std::size_t>(found - model_.held.begin()));
    }
  }

  Planned& pool_;
  testing::Random random_;
  const Ways ways_;
  Model model_;
};

constexpr std::uint64_t seeds = 40;

template <class MakePool>
void random_runs(std::uint64_t first, const Ways& ways, MakePool&& make_pool) {
  const testing::CaughtReports refusals;
  std::uint64_t served = 0;
  std::uint64_t passed_on = 0;
  for (std::uint64_t seed = testing::seed_or(first), end = seed + seeds; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    const Ref<Planned> pool = make_pool();
    RandomRun(*pool, seed, ways).run();
    if (::testing::Test::HasFatalFailure()) return;
    served += pool->counts().served;
    passed_on += pool->counts().passed_on;
    pool->unpin();
    testing::expect_all_accounted_for(*pool);
    ASSERT_EQ(pool->slab_bytes(), 0U);
  }
  EXPECT_GT(served, passed_on / 2);
}

Ref<Planned> on_host() {
  return make<Planned>(make<HostDevice>());
}
Ref<Planned> on_simulated() {
  return make<Planned>(make<SimulatedDevice>());
}
Ref<Planned> on_cache() {
  return make<Planned>(make<Cache>(make<SimulatedDevice>(), Cache::Options{}));
}
Ref<Planned> on_coarse() {
  return make<Planned>(
      make<SimulatedDevice>(SimulatedDevice::Options{.granularity = 4_KiB, .alignment = 256}));
}

TEST(PlannedProperty, KeepsWhatIsWritten) {
  random_runs(1000, {}, on_host);
}

TEST(PlannedProperty, KeepsItsLawsWhereCyclesSeldomDeviate) {
  random_runs(2000, {.deviating = 10, .resets = 0}, on_simulated);
}

TEST(PlannedProperty, KeepsItsLawsWhereEveryCycleDeviates) {
  random_runs(3000, {.deviating = 100}, on_host);
}

TEST(PlannedProperty, KeepsItsLawsBetweenResets) {
  random_runs(4000, {.deviating = 15, .resets = 50}, on_host);
}

TEST(PlannedProperty, KeepsItsLawsOnACache) {
  random_runs(5000, {.resets = 50}, on_cache);
}

TEST(PlannedProperty, KeepsItsLawsWhereBlocksAreCoarserThanAligned) {
  random_runs(6000, {}, on_coarse);
}

TEST(PlannedProperty, KeepsItsLawsWhereTheOwnerIsChecked) {
  random_runs(7000, {.checks_owner = true}, on_host);
}

}  // namespace
}  // namespace cistern
