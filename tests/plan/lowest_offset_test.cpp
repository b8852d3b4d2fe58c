// The parts of the greedy rule, each against a plain model of it.
#include "plan/lowest_offset.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "plan/conflicts.hpp"
#include "plan/fit_index.hpp"
#include "plan/instances.hpp"
#include "plan/part.hpp"
#include "plan/priorities.hpp"
#include "plan/skyline.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using detail::Part;

class LowestOffsetTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<std::uint32_t> random_order(std::uint32_t size) {
    std::vector<std::uint32_t> order(size);
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    for (std::uint32_t i = size; i > 1; --i)
      std::swap(order[i - 1], order[random_.below(i)]);
    return order;
  }
  /// All parts of random buffers.
  [[nodiscard]] std::vector<Part> random_parts(std::size_t buffers, std::uint64_t times,
                                               unsigned alignment_bits = 0) {
    return detail::partition(testing::random_buffers(
        random_, {.buffers = buffers, .times = times, .alignment_bits = alignment_bits}));
  }

  std::uint64_t seed_ = testing::seed_or(12);
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, testing::replay_hint(seed_)};
  testing::Random random_{seed_};
};

TEST_F(LowestOffsetTest, SkylineIsTheHeightOfEachSection) {
  for (int run = 0; run < 200; ++run) {
    const auto sections = static_cast<std::uint32_t>(1 + random_.below(12));
    detail::Skyline skyline(sections);
    skyline.clear();
    std::vector<std::size_t> heights(sections, 0);
    for (int step = 0; step < 40; ++step) {
      const auto [first, last, height] = skyline.lowest();
      const auto lowest = std::min_element(heights.begin(), heights.end());
      ASSERT_EQ(height, *lowest);
      ASSERT_EQ(heights.begin() + first, lowest);
      ASSERT_LE(last, sections);
      ASSERT_TRUE(std::all_of(heights.begin() + first, heights.begin() + last,
                              [&, low = height](std::size_t each) { return each == low; }));
      if (random_.chance(40) && last - first < sections) {
        const std::size_t left = first > 0 ? heights[first - 1] : ~std::size_t{0};
        const std::size_t right = last < sections ? heights[last] : ~std::size_t{0};
        skyline.lift();
        std::fill(heights.begin() + first, heights.begin() + last, std::min(left, right));
        continue;
      }
      const auto from = first + static_cast<std::uint32_t>(random_.below(last - first));
      const auto to = from + 1 + static_cast<std::uint32_t>(random_.below(last - from));
      const std::size_t top = height + 1 + random_.below(3);
      skyline.put(from, to, top);
      std::fill(heights.begin() + from, heights.begin() + to, top);
    }
  }
}

TEST_F(LowestOffsetTest, IndexFindsTheFirstOfTheOrderThatFits) {
  for (int run = 0; run < 100; ++run) {
    for (const Part& part : random_parts(30, 20)) {
      detail::FitIndex index(part);
      const auto order = random_order(part.size());
      index.fill(order);
      std::vector<bool> is_erased(part.size());
      for (int step = 0; step < 40; ++step) {
        const auto first = static_cast<std::uint32_t>(random_.below(part.sections));
        const auto last =
            first + 1 + static_cast<std::uint32_t>(random_.below(part.sections - first));
        std::uint32_t expected = 0;
        while (expected < part.size() &&
               (is_erased[order[expected]] || part.items[order[expected]].first < first ||
                part.items[order[expected]].last > last))
          ++expected;
        if (expected == part.size()) expected = detail::FitIndex::none;
        ASSERT_EQ(index.first_within(first, last), expected);
        if (expected == detail::FitIndex::none) continue;
        index.erase(order[expected]);
        is_erased[order[expected]] = true;
      }
    }
  }
}

TEST_F(LowestOffsetTest, PlacesEveryItemOnTopOfOthersOrAtTheBottom) {
  for (int run = 0; run < 200; ++run) {
    for (const Part& part : random_parts(20, 15, 3)) {
      detail::LowestOffset greedy(part);
      detail::Effort effort{PlanBudget{}};
      std::vector<std::size_t> offsets;
      const std::size_t peak = greedy.place(random_order(part.size()), offsets, effort);
      std::size_t highest = 0;
      for (std::uint32_t a = 0; a < part.size(); ++a) {
        const detail::Item& item = part.items[a];
        highest = std::max(highest, offsets[a] + item.bytes);
        ASSERT_EQ(offsets[a] % item.alignment, 0U);
        for (std::uint32_t b = 0; b < part.size(); ++b) {
          const detail::Item& other = part.items[b];
          if (a == b || item.first >= other.last || other.first >= item.last) continue;
          ASSERT_TRUE(offsets[a] >= offsets[b] + other.bytes ||
                      offsets[b] >= offsets[a] + item.bytes);
        }
      }
      ASSERT_EQ(peak, highest);
    }
  }
}

TEST_F(LowestOffsetTest, TheOrderDecidesBetweenThoseThatFitTheSameNiche) {
  const auto parts = detail::partition(std::vector<Lifetime>{{0, 1, 5}, {0, 2, 3}, {1, 2, 4}});
  detail::LowestOffset greedy(parts[0]);
  detail::Effort effort{PlanBudget{}};
  std::vector<std::size_t> offsets;
  EXPECT_EQ(greedy.place(std::vector<std::uint32_t>{1, 0, 2}, offsets, effort), 8U);
  EXPECT_EQ(offsets, (std::vector<std::size_t>{3, 0, 3}));
  EXPECT_EQ(greedy.place(std::vector<std::uint32_t>{0, 1, 2}, offsets, effort), 8U);
  EXPECT_EQ(offsets, (std::vector<std::size_t>{0, 5, 0}));
}

TEST_F(LowestOffsetTest, ConflictsAreThoseThatShareASection) {
  for (int run = 0; run < 100; ++run) {
    for (const Part& part : random_parts(20, 25)) {
      const detail::Conflicts conflicts(part);
      std::uint64_t listed = 0;
      for (std::uint32_t a = 0; a < part.size(); ++a) {
        std::vector<std::uint32_t> expected;
        for (std::uint32_t b = 0; b < part.size(); ++b) {
          if (a != b && part.items[a].first < part.items[b].last &&
              part.items[b].first < part.items[a].last)
            expected.push_back(b);
        }
        std::vector<std::uint32_t> others(conflicts.of(a).begin(), conflicts.of(a).end());
        std::sort(others.begin(), others.end());
        ASSERT_EQ(others, expected);
        listed += others.size();
      }
      ASSERT_EQ(detail::count_conflicts(part), listed / 2);
    }
  }
}

TEST_F(LowestOffsetTest, PrioritiesFollowTroubleAndForgetIt) {
  const auto parts = detail::partition(std::vector<Lifetime>{{0, 2, 4}, {0, 2, 5}, {0, 2, 6}});
  detail::Priorities priorities(parts[0], detail::Priorities::area);
  EXPECT_EQ(priorities.order(), (std::vector<std::uint32_t>{2, 1, 0}));
  detail::Random random(1);
  for (int round = 0; round < 20; ++round)
    priorities.raise(std::vector<double>{1, 0, 0}, random);
  EXPECT_EQ(priorities.order(), (std::vector<std::uint32_t>{0, 2, 1}));
  for (int round = 0; round < 200; ++round)
    priorities.raise(std::vector<double>{0, 0, 0}, random);
  EXPECT_EQ(priorities.order(), (std::vector<std::uint32_t>{2, 1, 0}));
}

}  // namespace
}  // namespace cistern
