#include "cistern/device/simulated_queues.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/device/simulated.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using ::testing::HasSubstr;
using Access = SimulatedQueues::Access;
using Use = SimulatedQueues::Use;

/// Bytes that belong to nobody.
Block bytes_at(std::size_t offset, std::size_t bytes) {
  return {.memory = reinterpret_cast<void*>(std::uintptr_t{1} << 32),  // NOLINT
          .offset = offset,
          .bytes = bytes};
}

class SimulatedQueuesTest : public ::testing::Test {
 protected:
  std::uint64_t writes(Stream stream, const Block& block) {
    return queues_.launch(stream, {{.block = block, .access = Access::write}});
  }
  std::uint64_t reads(Stream stream, const Block& block) {
    return queues_.launch(stream, {{.block = block, .access = Access::read}});
  }
  void wait(Stream waiter, Stream on) { ASSERT_TRUE(queues_.wait(waiter, on)); }
  [[nodiscard]] std::size_t conflicts() const { return queues_.conflicts().size(); }
  void expect_in_order() {
    queues_.run(1);
    EXPECT_EQ(queues_.reports(), std::vector<std::string>());
    EXPECT_EQ(queues_.corruptions(), 0U);
    EXPECT_EQ(queues_.works_run(), queues_.works_launched());
  }

  SimulatedQueues queues_;
  const Stream one_ = queues_.make_stream();
  const Stream two_ = queues_.make_stream();
  const Stream three_ = queues_.make_stream();
  const Stream loose_ = queues_.make_stream(true);
  const Block block_ = bytes_at(0, 4096);
};

TEST_F(SimulatedQueuesTest, StreamsHaveIdsOfTheirOwn) {
  const std::set<std::uint64_t> ids{0, one_.id, two_.id, three_.id, loose_.id};
  EXPECT_EQ(ids.size(), 5U);
  EXPECT_TRUE(loose_.runs_out_of_order());
  EXPECT_FALSE(one_.runs_out_of_order());
  queues_.retire(three_);
  EXPECT_FALSE(ids.contains(queues_.make_stream().id));
  writes({.id = 77}, block_);  // the program's own
  EXPECT_EQ(queues_.make_stream().id, 78U);
}

TEST_F(SimulatedQueuesTest, NothingRunsBeforeItIsMadeTo) {
  writes(one_, block_);
  wait(two_, one_);
  writes(two_, block_);
  EXPECT_EQ(queues_.works_run(), 0U);
  EXPECT_TRUE(queues_.step(0));
  EXPECT_EQ(queues_.works_run(), 1U);
  expect_in_order();
  EXPECT_FALSE(queues_.step(0));
}

TEST_F(SimulatedQueuesTest, OneStreamIsInOrder) {
  writes(one_, block_);
  reads(one_, block_);
  writes(one_, block_);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, TwoStreamsAreNot) {
  const std::uint64_t first = writes(one_, block_);
  const std::uint64_t second = reads(two_, block_);
  ASSERT_EQ(conflicts(), 1U);
  const SimulatedQueues::Conflict found = queues_.conflicts()[0];
  EXPECT_EQ(found.address, std::uintptr_t{1} << 32);
  EXPECT_EQ(found.bytes, 4096U);
  EXPECT_EQ(found.earlier, (SimulatedQueues::Work{first, one_.id, Access::write}));
  EXPECT_EQ(found.later, (SimulatedQueues::Work{second, two_.id, Access::read}));
  EXPECT_EQ(describe(found),
            "4096 bytes at 4294967296 are used by work 1 (writes) on stream 1 and work 2 (reads) "
            "on stream 2 without an order between them");
  EXPECT_EQ(queues_.reports(), std::vector<std::string>{describe(found)});
}

TEST_F(SimulatedQueuesTest, AReadThenAWriteNeedsAnOrderToo) {
  reads(one_, block_);
  writes(two_, block_);
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, ReadsNeedNone) {
  writes(one_, block_);
  wait(two_, one_);
  wait(three_, one_);
  reads(two_, block_);
  reads(three_, block_);
  reads(one_, block_);
  EXPECT_EQ(conflicts(), 0U);
  writes(one_, block_);  // comes after its own read alone
  EXPECT_EQ(conflicts(), 2U);
}

TEST_F(SimulatedQueuesTest, AWaitIsAnOrderForWhatFollows) {
  writes(one_, block_);
  wait(two_, one_);
  writes(two_, block_);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, AWaitIsNoOrderForWhatWasThere) {
  wait(two_, one_);
  writes(one_, block_);
  writes(two_, block_);
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, AWaitTheOtherWayRoundIsNone) {
  writes(one_, block_);
  wait(one_, two_);
  writes(two_, block_);
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, OrderIsTransitive) {
  writes(one_, block_);
  wait(two_, one_);
  wait(three_, two_);  // nothing stands in it but the wait
  writes(three_, block_);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, AWaitOnAnEmptyQueueIsFree) {
  for (int i = 0; i < 100; ++i)
    wait(one_, two_);
  EXPECT_FALSE(queues_.step(0));
  EXPECT_EQ(queues_.waits(), 100U);
}

TEST_F(SimulatedQueuesTest, OnlyBytesInCommonCount) {
  writes(one_, bytes_at(0, 4096));
  writes(two_, bytes_at(4096, 4096));
  EXPECT_EQ(conflicts(), 0U);
  writes(three_, bytes_at(4000, 200));
  const std::vector<SimulatedQueues::Conflict> found = queues_.conflicts();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].address, (std::uintptr_t{1} << 32) + 4000);
  EXPECT_EQ(found[0].bytes, 96U);
  EXPECT_EQ(found[1].address, (std::uintptr_t{1} << 32) + 4096);
  EXPECT_EQ(found[1].bytes, 104U);
}

TEST_F(SimulatedQueuesTest, OneConflictOverManyPiecesIsOne) {
  for (std::size_t i = 0; i < 4; ++i)
    reads(two_, bytes_at(i * 1000, 500));
  writes(one_, bytes_at(0, 4096));
  EXPECT_EQ(conflicts(), 4U);  // with four pieces of work
  writes(three_, bytes_at(100, 3800));
  const std::vector<SimulatedQueues::Conflict> found = queues_.conflicts();
  EXPECT_EQ(std::ranges::count(found, 5U, [](const auto& each) { return each.earlier.number; }), 1);
}

TEST_F(SimulatedQueuesTest, APieceOfWorkDoesNotConflictWithItself) {
  queues_.launch(one_, {{.block = block_, .access = Access::read},
                        {.block = block_, .access = Access::write},
                        {.block = bytes_at(0, 100), .access = Access::read},
                        {.block = Block{}, .access = Access::write}});
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, OutOfOrderNeedsABarrier) {
  writes(loose_, block_);
  writes(loose_, block_);
  EXPECT_EQ(conflicts(), 1U);
  EXPECT_THAT(queues_.reports()[0], HasSubstr("(out of order)"));
}

TEST_F(SimulatedQueuesTest, OutOfOrderWithABarrier) {
  writes(loose_, block_);
  wait(loose_, loose_);
  writes(loose_, block_);
  wait(one_, loose_);
  writes(one_, block_);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, WaitingForAnotherStreamIsNoBarrierBetweenItsOwnWork) {
  writes(loose_, block_);
  wait(loose_, one_);
  writes(loose_, block_);
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, TheHostOrdersAll) {
  writes(one_, block_);
  writes(two_, bytes_at(4096, 1));
  EXPECT_TRUE(queues_.synchronize(one_));
  EXPECT_EQ(queues_.works_run(), 1U);
  writes(two_, block_);
  EXPECT_EQ(conflicts(), 0U);
  writes(three_, bytes_at(4096, 1));  // of a stream that was not waited for
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, SynchronisingRunsWhatItNeedsAndNoMore) {
  writes(one_, block_);
  wait(two_, one_);
  writes(one_, bytes_at(5000, 1));
  writes(two_, block_);
  writes(two_, bytes_at(6000, 1));
  writes(three_, bytes_at(7000, 1));
  EXPECT_TRUE(queues_.synchronize(two_));
  EXPECT_EQ(queues_.works_run(), 3U);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, ARetiredStreamIsDoneAndNeedsNoWait) {
  writes(one_, block_);
  queues_.retire(one_);
  EXPECT_EQ(queues_.works_run(), 1U);
  writes(two_, block_);
  wait(two_, one_);
  wait(one_, two_);
  EXPECT_TRUE(queues_.synchronize(one_));
  expect_in_order();
  EXPECT_EQ(writes(one_, block_), 0U);
  EXPECT_THAT(queues_.reports().at(0), HasSubstr("stream 1, which was retired"));
}

TEST_F(SimulatedQueuesTest, TheDefaultStreamStays) {
  writes({}, block_);
  queues_.retire({});
  writes(one_, block_);
  EXPECT_NE(writes({}, bytes_at(5000, 1)), 0U);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, WhereTheDeviceCannotWaitTheHostDoes) {
  writes(one_, block_);
  queues_.fail_next_wait(1);
  wait(two_, one_);
  EXPECT_EQ(queues_.waits(), 1U);
  EXPECT_EQ(queues_.synchronizations(), 1U);
  EXPECT_EQ(queues_.works_run(), 1U);
  writes(two_, block_);
  queues_.fail_next_wait(1);
  queues_.fail_next_synchronization(1);
  const Expected<void> neither = queues_.wait(three_, two_);
  ASSERT_FALSE(neither);
  EXPECT_EQ(neither.error().code, Errc::device_failed);
  expect_in_order();
}

TEST_F(SimulatedQueuesTest, WaitsCanBeIgnoredButForTheProgramsOwn) {
  queues_.ignore_waits(true);
  writes(one_, block_);
  wait(two_, one_);
  writes(two_, block_);
  EXPECT_EQ(conflicts(), 1U);
  queues_.wait_as_program(three_, one_);
  queues_.wait_as_program(three_, two_);
  writes(three_, block_);
  EXPECT_EQ(conflicts(), 1U);
}

TEST_F(SimulatedQueuesTest, WhatRunsInAnotherOrderIsSeenToo) {
  writes(one_, block_);
  reads(two_, block_);
  EXPECT_TRUE(queues_.step(1));  // the read first
  EXPECT_EQ(queues_.corruptions(), 1U);
  EXPECT_EQ(queues_.reports().at(1),
            "work 2 found what work 0 wrote, and not work 1, in 4096 bytes at 4294967296");
  EXPECT_TRUE(queues_.step(0));
  EXPECT_EQ(queues_.corruptions(), 1U);
}

TEST_F(SimulatedQueuesTest, WhatIsKnownIsForgottenInTime) {
  for (std::size_t i = 0; i < 1000; ++i) {
    writes(i % 2 == 0 ? one_ : two_, bytes_at(i % 4 * 1024, 1024));
    wait(i % 2 == 0 ? two_ : one_, i % 2 == 0 ? one_ : two_);
    if (i % 10 == 0) queues_.run(i);
  }
  expect_in_order();
  EXPECT_LE(queues_.known_ranges(), 12U);
}

TEST(SimulatedWithQueues, ADeviceHasThemIfItIsAsked) {
  EXPECT_EQ(make<SimulatedDevice>()->stream_order(), nullptr);
  EXPECT_EQ(make<SimulatedDevice>()->queues(), nullptr);
  EXPECT_FALSE(make<SimulatedDevice>()->limits().has_queues);
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.queues = true});
  EXPECT_TRUE(device->limits().has_queues);
  EXPECT_EQ(device->stream_order(), device->queues());
}

TEST(SimulatedWithQueues, MemoryGoesBackAfterItsUse) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.queues = true});
  SimulatedQueues& queues = *device->queues();
  const Stream one = queues.make_stream();
  const Stream two = queues.make_stream();
  const auto use_and_free = [&](Stream used_on, Stream freed_on) {
    const Block block = device->allocate({.bytes = 4_KiB, .stream = used_on});
    queues.launch(used_on, {{block, Access::write}});
    device->deallocate(block, freed_on);
  };
  use_and_free(one, one);
  EXPECT_EQ(device->validate(), "");
  EXPECT_EQ(queues.works_run(), 1U);
  EXPECT_EQ(queues.known_ranges(), 0U);
  use_and_free(two, one);
  EXPECT_THAT(device->validate(), HasSubstr("4096 bytes at 4294971392 were given back on stream 1, "
                                            "which work 2 (writes) on stream 2 need not come "
                                            "before"));
}

TEST(SimulatedWithQueues, SoDoPages) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.queues = true});
  SimulatedQueues& queues = *device->queues();
  const Stream one = queues.make_stream();
  VirtualMemory& pages = *device->virtual_memory();
  const AddressRange range = pages.reserve(64_KiB, 4_KiB).value();
  const Block block{.memory = range.start, .offset = 0, .bytes = 4_KiB};
  for (const Stream freed_on : {one, Stream{}}) {
    ASSERT_TRUE(pages.map(range, range.start, 4_KiB));
    queues.launch(one, {{block, Access::write}});
    EXPECT_EQ(queues.conflicts().size(), 0U);
    pages.unmap(range, range.start, 4_KiB, freed_on);
  }
  EXPECT_EQ(queues.conflicts().size(), 1U);
  pages.release(range);
}

// --- against reachability in the graph of everything that was enqueued ---

/// A small program, and what the rules of streams say of it, word by word.
class QueuesModel {
 public:
  struct Node {
    enum class Kind : std::uint8_t { work, marker, barrier, host } kind = Kind::work;
    std::uint64_t stream = 0;
    std::uint64_t number = 0;  // of the work
    std::vector<Use> uses;
    std::vector<bool> after;  // which nodes it comes after
  };

  void work(Stream stream, std::uint64_t number, std::vector<Use> uses) {
    Node node = of(Node::Kind::work, stream);
    node.number = number;
    node.uses = std::move(uses);
    add(std::move(node), {});
  }
  void wait(Stream waiter, Stream on) {
    const std::size_t marker = add(of(Node::Kind::marker, on), {});
    add(of(Node::Kind::barrier, waiter), {marker});
  }
  void host(Stream on) {
    const std::size_t marker = add(of(Node::Kind::marker, on), {});
    add(of(Node::Kind::host, {}), {marker});
  }

  using Pair = std::pair<std::uint64_t, std::uint64_t>;
  [[nodiscard]] std::set<Pair> conflicts() const {
    std::set<Pair> found;
    for (std::size_t late = 0; late < nodes_.size(); ++late) {
      for (std::size_t early = 0; early < late; ++early) {
        if (!nodes_[late].after[early] && conflict(nodes_[early], nodes_[late]))
          found.insert({nodes_[early].number, nodes_[late].number});
      }
    }
    return found;
  }

 private:
  static Node of(Node::Kind kind, Stream stream) {
    Node node;
    node.kind = kind;
    node.stream = stream.id;
    return node;
  }
  std::size_t add(Node node, const std::vector<std::size_t>& waits_for) {
    node.after.resize(nodes_.size());
    for (const std::size_t each : waits_for)
      come_after(node, each);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      const Node& before = nodes_[i];
      const bool is_own = before.kind != Node::Kind::host && node.kind != Node::Kind::host &&
                          before.stream == node.stream;
      const bool is_loose = Stream{.handle = nullptr, .id = node.stream}.runs_out_of_order();
      if (before.kind == Node::Kind::host ||
          (is_own &&
           (!is_loose || node.kind == Node::Kind::marker || before.kind == Node::Kind::barrier)))
        come_after(node, i);
    }
    nodes_.push_back(std::move(node));
    return nodes_.size() - 1;
  }
  void come_after(Node& node, std::size_t before) const {
    node.after[before] = true;
    for (std::size_t i = 0; i < before; ++i)
      node.after[i] = node.after[i] || nodes_[before].after[i];
  }
  static bool conflict(const Node& a, const Node& b) {
    for (const Use& first : a.uses) {
      for (const Use& second : b.uses) {
        const bool writes = first.access == Access::write || second.access == Access::write;
        if (writes && first.block.offset < second.block.offset + second.block.bytes &&
            second.block.offset < first.block.offset + first.block.bytes)
          return true;
      }
    }
    return false;
  }

  std::vector<Node> nodes_;
};

TEST(SimulatedQueuesProperty, FindsWhatTheGraphSays) {
  const std::uint64_t seed = testing::seed_or(12);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  std::size_t programs_in_order = 0;
  std::size_t programs_in_conflict = 0;
  std::size_t programs_corrupted = 0;
  for (int program = 0; program < 4000; ++program) {
    SimulatedQueues queues;
    QueuesModel model;
    std::vector<Stream> streams{Stream{}};
    std::set<std::uint64_t> retired;
    for (std::uint64_t i = 1 + random.below(3); i > 0; --i)
      streams.push_back(queues.make_stream(random.chance(30)));
    const std::size_t places = 2 + random.below(20);
    const auto any_use = [&] {
      const std::size_t from = random.below(places);
      return Use{.block = bytes_at(from, 1 + random.below(3)),
                 .access = random.chance(50) ? Access::read : Access::write};
    };
    for (std::uint64_t i = 2 + random.below(30); i > 0; --i) {
      const Stream stream = streams[random.below(streams.size())];
      const Stream other = streams[random.below(streams.size())];
      const std::uint64_t choice = random.below(100);
      if (choice < 45 && !retired.contains(stream.id)) {
        std::vector<Use> uses{any_use()};
        if (random.chance(40)) uses.push_back(any_use());
        const std::uint64_t number = queues.launch(stream, uses);
        model.work(stream, number, std::move(uses));
      } else if (choice < 85) {
        ASSERT_TRUE(queues.wait(stream, other));
        if (retired.contains(stream.id)) {
          if (!retired.contains(other.id)) model.host(other);
        } else if (!retired.contains(other.id)) {
          model.wait(stream, other);
        }
      } else if (choice < 88) {
        ASSERT_TRUE(queues.synchronize(stream));
        if (!retired.contains(stream.id)) model.host(stream);
      } else if (choice < 90 && stream.id != 0) {
        queues.retire(stream);
        if (retired.insert(stream.id).second) model.host(stream);
        streams.push_back(queues.make_stream(random.chance(30)));
      } else if (choice < 95) {
        queues.step(random.below(1000));
      }
    }
    queues.run(random.below(1000));
    EXPECT_EQ(queues.works_run(), queues.works_launched());

    const std::set<QueuesModel::Pair> expected = model.conflicts();
    std::set<std::uint64_t> expected_later;
    for (const auto& [early, late] : expected)
      expected_later.insert(late);
    std::set<std::uint64_t> later;
    for (const SimulatedQueues::Conflict& each : queues.conflicts()) {
      EXPECT_TRUE(expected.contains({each.earlier.number, each.later.number})) << describe(each);
      later.insert(each.later.number);
    }
    EXPECT_EQ(later, expected_later) << "program " << program;
    if (expected.empty()) {
      EXPECT_EQ(queues.corruptions(), 0U) << "program " << program;
    }
    ++(expected.empty() ? programs_in_order : programs_in_conflict);
    if (queues.corruptions() > 0) ++programs_corrupted;
    if (HasFailure()) return;
  }
  EXPECT_GE(programs_in_order, 400U);
  EXPECT_GE(programs_in_conflict, 400U);
  EXPECT_GE(programs_corrupted, 200U);
}

}  // namespace
}  // namespace cistern
