#include "cistern/core/handover.hpp"

#include <gtest/gtest.h>

#include "cistern/core/idle_order.hpp"
#include "cistern/core/node.hpp"
#include "support/noting_order.hpp"

namespace cistern {
namespace {

using Waits = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

constexpr Stream handed_on{.handle = nullptr, .id = 1};
constexpr Stream taken_on{.handle = nullptr, .id = 2};
constexpr Stream also_on{.handle = nullptr, .id = 3};
constexpr Stream unordered{.handle = nullptr, .id = Stream::out_of_order | 4U};

class HandoverTest : public ::testing::Test {
 protected:
  testing::NotingOrder order_;
  Handover handover_{&order_};
  Node a_;
  Node b_;
};

TEST_F(HandoverTest, AStreamNeedNotWaitForItself) {
  EXPECT_TRUE(handover_.is_ready(handed_on, handed_on));
  EXPECT_TRUE(handover_.make_ready(handed_on, handed_on));
  EXPECT_TRUE(handover_.make_ready({}, {}));
  EXPECT_EQ(order_.waits, Waits{});
}

TEST_F(HandoverTest, AnotherStreamWaitsWhenItTakes) {
  EXPECT_FALSE(handover_.is_ready(handed_on, taken_on));
  EXPECT_TRUE(handover_.make_ready(handed_on, taken_on));
  EXPECT_EQ(order_.waits, (Waits{{2, 1}}));
}

TEST_F(HandoverTest, AStreamThatRunsOutOfOrderWaitsForItself) {
  EXPECT_FALSE(handover_.is_ready(unordered, unordered));
  EXPECT_TRUE(handover_.make_ready(unordered, unordered));
  EXPECT_EQ(order_.waits, (Waits{{unordered.id, unordered.id}}));
  EXPECT_FALSE(handover_.is_ready(unordered, taken_on));
}

TEST_F(HandoverTest, WhereTheDeviceCannotWaitTheHostDoes) {
  order_.can_wait = false;
  EXPECT_TRUE(handover_.make_ready(handed_on, taken_on));
  EXPECT_EQ(order_.synchronised, std::vector<std::uint64_t>{1});
  order_.can_synchronise = false;
  EXPECT_FALSE(handover_.make_ready(handed_on, taken_on));
}

TEST_F(HandoverTest, WithoutQueuesAllComesToNothing) {
  Handover none;
  EXPECT_TRUE(none.make_ready(handed_on, taken_on));
  EXPECT_TRUE(none.make_ready(unordered, unordered));
  EXPECT_TRUE(none.add_use(a_, taken_on));
  EXPECT_FALSE(none.has_uses());
  EXPECT_EQ(none.end_uses(a_, handed_on), handed_on);
  EXPECT_EQ(none.join(handed_on, taken_on), handed_on);
}

TEST_F(HandoverTest, AFreeWaitsForTheOtherStreamsOfItsBlock) {
  EXPECT_TRUE(handover_.add_use(a_, taken_on));
  EXPECT_TRUE(handover_.add_use(a_, taken_on));  // noted once
  EXPECT_TRUE(handover_.add_use(a_, also_on));
  EXPECT_TRUE(handover_.add_use(b_, also_on));
  EXPECT_EQ(order_.waits, Waits{});
  EXPECT_EQ(handover_.end_uses(a_, handed_on), handed_on);
  EXPECT_EQ(order_.waits, (Waits{{1, 2}, {1, 3}}));
  EXPECT_EQ(handover_.end_uses(a_, handed_on), handed_on);
  EXPECT_EQ(order_.waits.size(), 2U);
  EXPECT_TRUE(handover_.has_uses());
  EXPECT_EQ(handover_.end_uses(b_, also_on), also_on);  // itself
  EXPECT_EQ(order_.waits.size(), 2U);
  EXPECT_FALSE(handover_.has_uses());
}

TEST_F(HandoverTest, EndsTheUsesOfManyBlocksAtOnce) {
  EXPECT_TRUE(handover_.add_use(a_, taken_on));
  EXPECT_TRUE(handover_.add_use(b_, also_on));
  EXPECT_EQ(handover_.end_uses_if([&](const Node& node) { return &node == &b_; }, handed_on),
            handed_on);
  EXPECT_EQ(order_.waits, (Waits{{1, 3}}));
  EXPECT_TRUE(handover_.has_uses());
}

TEST_F(HandoverTest, WhatACapturedStreamUsesTooIsFreedOnThatOne) {
  order_.graphs = {{taken_on.id, 1}};
  EXPECT_TRUE(handover_.add_use(a_, taken_on));
  EXPECT_TRUE(handover_.add_use(a_, also_on));
  EXPECT_EQ(handover_.end_uses(a_, handed_on), taken_on);
  EXPECT_EQ(order_.waits, Waits{});
  EXPECT_EQ(order_.synchronised, (std::vector<std::uint64_t>{handed_on.id, also_on.id}));
  EXPECT_FALSE(handover_.make_ready(taken_on, handed_on));
  EXPECT_TRUE(handover_.make_ready(taken_on, taken_on));
}

TEST_F(HandoverTest, OfTwoStreamsTheOneThatIsCapturedComesLast) {
  order_.graphs = {{taken_on.id, 1}, {also_on.id, 2}};
  EXPECT_EQ(handover_.join(handed_on, taken_on), taken_on);
  EXPECT_EQ(handover_.join(taken_on, handed_on), taken_on);
  EXPECT_EQ(order_.synchronised, (std::vector<std::uint64_t>{handed_on.id, handed_on.id}));
  EXPECT_EQ(join(&order_, taken_on, also_on), std::nullopt) << "of two graphs neither can";
  EXPECT_EQ(handover_.join(taken_on, also_on), taken_on);
  order_.graphs[also_on.id] = 1;
  EXPECT_EQ(handover_.join(taken_on, also_on), taken_on);
  EXPECT_EQ(order_.waits, (Waits{{taken_on.id, also_on.id}})) << "in one graph";
}

class IdleOrderTest : public ::testing::Test {
 protected:
  testing::NotingOrder order_;
  IdleOrder idle_{&order_};
};

TEST_F(IdleOrderTest, WithoutQueuesAllComesToNothing) {
  IdleOrder none(nullptr);
  none.note_free(handed_on);
  EXPECT_TRUE(none.make_ready(taken_on));
  EXPECT_TRUE(none.make_ready(unordered));
  EXPECT_EQ(none.gather(), Stream{});
}

TEST_F(IdleOrderTest, AStreamAloneNeverWaits) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(idle_.make_ready(handed_on));
    idle_.note_free(handed_on);
  }
  EXPECT_EQ(order_.waits, Waits{});
}

TEST_F(IdleOrderTest, WhoTakesWaitsForAllThatHaveFreedSince) {
  idle_.note_free(handed_on);
  idle_.note_free(taken_on);
  idle_.note_free(handed_on);
  EXPECT_TRUE(idle_.make_ready(also_on));
  EXPECT_EQ(order_.waits, (Waits{{3, 1}, {3, 2}}));
  EXPECT_TRUE(idle_.make_ready(also_on));
  EXPECT_EQ(order_.waits.size(), 2U);
  EXPECT_TRUE(idle_.make_ready(handed_on));  // what the third waited for is behind it now
  EXPECT_EQ(order_.waits.back(), (std::pair<std::uint64_t, std::uint64_t>{1, 3}));
}

TEST_F(IdleOrderTest, OfManyStreamsOneWaitsForTheRest) {
  for (std::uint64_t id = 1; id <= 10; ++id)
    idle_.note_free({.handle = nullptr, .id = id});
  EXPECT_EQ(order_.waits, (Waits{{1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {1, 7}, {1, 8}}));
  EXPECT_TRUE(idle_.make_ready({.handle = nullptr, .id = 20}));
  EXPECT_EQ(order_.waits.size(), 10U);
}

TEST_F(IdleOrderTest, AStreamThatIsCapturedComesLast) {
  for (std::uint64_t id = 1; id <= 20; ++id) {
    if (id == 4) order_.graphs = {{4, 1}};
    idle_.note_free({.handle = nullptr, .id = id});
  }
  EXPECT_EQ(idle_.gather().id, 4U);
  EXPECT_FALSE(idle_.make_ready({.handle = nullptr, .id = 30}));
  order_.graphs = {};
  order_.waits = {};
  EXPECT_TRUE(idle_.make_ready({.handle = nullptr, .id = 30}));
  EXPECT_EQ(order_.waits, (Waits{{30, 4}}));
}

TEST_F(IdleOrderTest, ManyStreamsOfFewGraphsAreNotForgotten) {
  for (std::uint64_t id = 1; id <= 30; ++id)
    order_.graphs[id] = 1 + static_cast<int>(id % 3);
  for (std::uint64_t id = 1; id <= 30; ++id)
    idle_.note_free({.handle = nullptr, .id = id});
  order_.graphs[40] = 1;
  EXPECT_FALSE(idle_.make_ready({.handle = nullptr, .id = 40}));
  static_cast<void>(idle_.gather());
  order_.graphs = {};
  order_.waits = {};
  EXPECT_TRUE(idle_.make_ready({.handle = nullptr, .id = 40}));
  EXPECT_EQ(order_.waits.size(), 3U) << "one of each graph, which has waited for its others";
}

TEST_F(IdleOrderTest, OneStreamMoreThanThereIsRoomForIsJoinedWithOneOfItsGraph) {
  for (std::uint64_t id = 1; id <= 9; ++id) {
    order_.graphs[id] = 1 + static_cast<int>(id % 8);
    idle_.note_free({.handle = nullptr, .id = id});
  }
  EXPECT_EQ(order_.waits, (Waits{{1, 9}}));
}

TEST_F(IdleOrderTest, StreamsThatAreCapturedApartAreNotForgotten) {
  order_.graphs = {{1, 1}, {2, 2}, {3, 3}};
  for (std::uint64_t id = 1; id <= 12; ++id)
    idle_.note_free({.handle = nullptr, .id = id});
  EXPECT_LE(idle_.gather().id, 3U) << "one that cannot be waited for";
  for (const std::uint64_t id : {3U, 1U, 2U}) {
    EXPECT_FALSE(idle_.make_ready({.handle = nullptr, .id = 30}));
    order_.graphs.erase(id);
  }
  EXPECT_TRUE(idle_.make_ready({.handle = nullptr, .id = 30}));
}

TEST_F(IdleOrderTest, AWaitThatCannotBeMadeIsAskedForAgain) {
  idle_.note_free(handed_on);
  order_.can_wait = order_.can_synchronise = false;
  EXPECT_FALSE(idle_.make_ready(taken_on));
  order_.can_wait = true;
  EXPECT_TRUE(idle_.make_ready(taken_on));
  EXPECT_EQ(order_.waits, (Waits{{2, 1}}));
}

}  // namespace
}  // namespace cistern
