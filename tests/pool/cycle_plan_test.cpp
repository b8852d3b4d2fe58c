// A plan for a cycle that was recorded: places, ranges of sizes, and the order of frees.
#include "cistern/pool/cycle_plan.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

using Kind = CycleRecord::Kind;
using ::testing::ElementsAre;

constexpr CycleRecord::Kind free_kind = Kind::free;
constexpr CycleRecord::Kind freed_before = Kind::free_of_cycle_before;
constexpr CyclePlan::Options plan_options{.steps = 10'000, .granule = 64, .headroom = 8};

class CyclePlanTest : public ::testing::Test {
 protected:
  CyclePlan plan(std::vector<bool> varies = {}) {
    varies.resize(record_.allocations());
    CyclePlan made(record_, varies, steps_, plan_options);
    EXPECT_EQ(made.validate(), nullptr);
    return made;
  }

  CycleRecord record_;
  PlanSteps steps_{32};
};

TEST_F(CyclePlanTest, PutsWhatLivesTogetherSideBySide) {
  record_.add_allocation({.bytes = 100});
  record_.add_allocation({.bytes = 200});
  record_.add_free(free_kind, 0);
  record_.add_allocation({.bytes = 90});
  record_.add_free(free_kind, 1);
  record_.add_free(free_kind, 2);
  const CyclePlan made = plan();
  ASSERT_EQ(made.steps().size(), 3U);
  EXPECT_EQ(made.slab_bytes(), 128U + 256U);
  EXPECT_EQ(steps_[0].granted, 128U);
  EXPECT_EQ(steps_[1].granted, 256U);
  EXPECT_EQ(steps_[2].place, steps_[0].place);
  EXPECT_EQ(made.slab_alignment(), 64U);
  EXPECT_FALSE(steps_[0].outlives_cycle);
  EXPECT_TRUE(made.has_one_stream());
  EXPECT_EQ(made.record().events().size(), 6U);
  EXPECT_EQ(made.end(), &steps_[3]);
}

TEST_F(CyclePlanTest, AStepAcceptsASizeOfItsGranules) {
  record_.add_allocation({.bytes = 100});
  record_.add_free(free_kind, 0);
  const CyclePlan made = plan();
  for (const std::size_t bytes : {0U, 1U, 64U, 129U, 1000U}) {
    EXPECT_FALSE(steps_[0].accepts_plain(bytes)) << bytes;
    EXPECT_FALSE(steps_[0].accepts({.bytes = bytes})) << bytes;
  }
  for (const std::size_t bytes : {65U, 100U, 128U}) {
    EXPECT_TRUE(steps_[0].accepts_plain(bytes)) << bytes;
    EXPECT_TRUE(steps_[0].accepts({.bytes = bytes})) << bytes;
  }
  EXPECT_TRUE(steps_[0].accepts({.bytes = 100, .alignment = 64}));
  EXPECT_FALSE(steps_[0].accepts({.bytes = 100, .alignment = 128}));
  EXPECT_FALSE(steps_[0].accepts({.bytes = 100, .stream = {.id = 1}}));
}

TEST_F(CyclePlanTest, OneThatVariesAcceptsAnEighthMore) {
  record_.add_allocation({.bytes = 1600});
  record_.add_free(free_kind, 0);
  const CyclePlan made = plan({true});
  EXPECT_EQ(steps_[0].granted, 1856U);  // 1800, rounded up
  EXPECT_FALSE(steps_[0].accepts_plain(0));
  EXPECT_TRUE(steps_[0].accepts_plain(1));
  EXPECT_TRUE(steps_[0].accepts_plain(1856));
  EXPECT_FALSE(steps_[0].accepts_plain(1857));
  EXPECT_TRUE(steps_[0].varies);
}

TEST_F(CyclePlanTest, PlacesAreAligned) {
  record_.add_allocation({.bytes = 64});
  record_.add_allocation({.bytes = 64, .alignment = 4096});
  record_.add_allocation({.bytes = 64, .alignment = 16});
  for (const std::uint32_t number : {0U, 1U, 2U})
    record_.add_free(free_kind, number);
  const CyclePlan made = plan();
  EXPECT_EQ(steps_[1].place % 4096, 0U);
  EXPECT_EQ(steps_[1].alignment, 4096U);
  EXPECT_EQ(steps_[2].alignment, 64U);
  EXPECT_EQ(made.slab_alignment(), 4096U);
  EXPECT_TRUE(steps_[1].accepts({.bytes = 64, .alignment = 4096}));
  EXPECT_FALSE(steps_[1].accepts({.bytes = 64, .alignment = 8192}));
}

TEST_F(CyclePlanTest, OnlyTheDefaultStreamIsPlain) {
  record_.add_allocation({.bytes = 64});
  record_.add_allocation({.bytes = 64, .stream = {.id = 3}});
  record_.add_free(free_kind, 0);
  record_.add_free(free_kind, 1);
  const CyclePlan made = plan();
  EXPECT_FALSE(made.has_one_stream());
  EXPECT_FALSE(steps_[1].accepts_plain(64));
  EXPECT_TRUE(steps_[1].accepts({.bytes = 64, .stream = {.id = 3}}));
  EXPECT_FALSE(steps_[1].accepts({.bytes = 64}));
}

TEST_F(CyclePlanTest, WhatIsFreedInTheCycleAfterKeepsItsPlaceForTheWhole) {
  record_.add_free(freed_before, 0);
  record_.add_allocation({.bytes = 64});
  record_.add_allocation({.bytes = 128});
  record_.add_free(free_kind, 1);
  const CyclePlan made = plan();
  EXPECT_TRUE(steps_[0].outlives_cycle);
  EXPECT_FALSE(steps_[0].is_elsewhere());
  EXPECT_EQ(made.slab_bytes(), 64U + 128U);
  EXPECT_THAT(made.frees(), ElementsAre(steps_.data(), &steps_[1]));
  EXPECT_EQ(made.barrier(0), steps_.data());  // not before it was freed
  EXPECT_EQ(made.barrier(1), made.end());
}

TEST_F(CyclePlanTest, WhatLivesLongerIsElsewhere) {
  record_.add_allocation({.bytes = 64});  // freed after the next was taken
  record_.add_free(freed_before, 0);
  record_.add_allocation({.bytes = 128});  // never freed
  record_.add_allocation({.bytes = 256});
  record_.add_free(free_kind, 2);
  record_.add_free(freed_before, 7);  // of a cycle that was longer
  const CyclePlan made = plan();
  EXPECT_TRUE(steps_[0].is_elsewhere());
  EXPECT_TRUE(steps_[1].is_elsewhere());
  EXPECT_FALSE(steps_[0].outlives_cycle);
  EXPECT_FALSE(steps_[0].accepts_plain(64));
  EXPECT_EQ(made.slab_bytes(), 256U);
  EXPECT_THAT(made.frees(), ElementsAre(&steps_[2]));
  EXPECT_EQ(made.granted_to(2), 0U);
  EXPECT_EQ(made.granted_to(3), 256U);
}

TEST_F(CyclePlanTest, AFreeOpensTheWayToTheNextBehindAFree) {
  record_.add_allocation({.bytes = 64});
  record_.add_allocation({.bytes = 128});
  record_.add_free(free_kind, 1);
  record_.add_free(free_kind, 0);
  record_.add_allocation({.bytes = 256});
  record_.add_free(free_kind, 2);
  record_.add_allocation({.bytes = 512});
  record_.add_free(free_kind, 3);
  const CyclePlan made = plan();
  EXPECT_THAT(made.frees(), ElementsAre(&steps_[1], steps_.data(), &steps_[2], &steps_[3]));
  EXPECT_EQ(made.barrier(0), &steps_[2]);
  EXPECT_EQ(made.barrier(1), &steps_[2]);
  EXPECT_EQ(made.barrier(2), &steps_[3]);
  EXPECT_EQ(made.barrier(3), made.end());
  EXPECT_EQ(made.barrier(4), made.end());
  EXPECT_EQ(made.granted_to(0), 0U);
  EXPECT_EQ(made.granted_to(2), 192U);
  EXPECT_EQ(made.granted_to(4), 960U);
  EXPECT_EQ(made.granted_of_frees(0), 0U);
  EXPECT_EQ(made.granted_of_frees(1), 128U);
  EXPECT_EQ(made.granted_of_frees(4), 960U);
}

TEST_F(CyclePlanTest, SizesBeyondAnyMemoryAreElsewhere) {
  record_.add_allocation({.bytes = SIZE_MAX - 10});
  record_.add_free(free_kind, 0);
  const CyclePlan made = plan({true});
  EXPECT_TRUE(steps_[0].is_elsewhere());
  EXPECT_EQ(made.slab_bytes(), 0U);
}

TEST_F(CyclePlanTest, TakesRecordsThatServedAnother) {
  record_.add_free(freed_before, 0);
  record_.add_allocation({.bytes = 640});
  plan({true});
  record_.clear();
  record_.add_allocation({.bytes = 100});
  record_.add_allocation({.bytes = 100});
  record_.add_free(free_kind, 1);
  const CyclePlan made = plan();
  EXPECT_TRUE(steps_[0].is_elsewhere());
  EXPECT_FALSE(steps_[0].outlives_cycle);
  EXPECT_FALSE(steps_[0].varies);
  EXPECT_FALSE(steps_[0].accepts_plain(100));
  EXPECT_EQ(steps_[0].granted, 0U);
  EXPECT_FALSE(steps_[1].accepts_plain(64));
  EXPECT_TRUE(made.has(steps_[1]));
  EXPECT_FALSE(made.has(steps_[2]));
  EXPECT_EQ(made.number_of(steps_[1]), 1U);
  const PlanSteps others(1);
  EXPECT_FALSE(made.has(others.front()));
}

TEST_F(CyclePlanTest, SaysWhichLawIsBroken) {
  record_.add_allocation({.bytes = 100});
  record_.add_free(free_kind, 0);
  const CyclePlan made = plan();
  const auto broken = [&](auto change) {
    const std::size_t place = steps_[0].place;
    const std::size_t lowest = steps_[0].lowest;
    const std::size_t usual = steps_[0].usual;
    change();
    const bool is_broken = made.validate() != nullptr;
    steps_[0].place = place;
    steps_[0].lowest = lowest;
    steps_[0].usual = usual;
    return is_broken;
  };
  EXPECT_TRUE(broken([&] { steps_[0].place = 64; }));
  EXPECT_TRUE(broken([&] { steps_[0].place = 3; }));
  EXPECT_TRUE(broken([&] { steps_[0].lowest = 64; }));
  EXPECT_TRUE(broken([&] { steps_[0].usual = 129; }));
  EXPECT_FALSE(broken([&] { steps_[0].usual = 128; }));
}

// At every moment of a cycle, those that are live by the record do not overlap.
TEST_F(CyclePlanTest, NothingOverlapsInRandomCycles) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 200; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    record_.clear();
    std::vector<std::uint32_t> live;
    std::vector<bool> varies;
    for (int i = 0; i < 40; ++i) {
      if (varies.size() < steps_.size() && random.chance(55)) {
        live.push_back(record_.add_allocation(
            {.bytes = random.size(12), .alignment = std::size_t{1} << random.below(10)}));
        varies.push_back(random.chance(30));
      } else if (!live.empty()) {
        const std::size_t index = random.below(live.size());
        record_.add_free(free_kind, std::exchange(live[index], live.back()));
        live.pop_back();
      }
    }
    const CyclePlan made = plan(varies);
    std::vector<const PlanStep*> now;
    for (const CycleRecord::Event& event : record_.events()) {
      const PlanStep& step = steps_[event.allocation];
      if (event.kind == free_kind) {
        std::erase(now, &step);
      } else if (!step.is_elsewhere()) {
        for (const PlanStep* other : now) {
          ASSERT_TRUE(other->place + other->granted <= step.place ||
                      step.place + step.granted <= other->place);
        }
        now.push_back(&step);
      }
    }
  }
}

}  // namespace
}  // namespace cistern
