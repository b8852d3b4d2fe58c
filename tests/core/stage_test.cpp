// What every stage above a device does with a block and a request that it passes on.
#include "cistern/core/stage.hpp"

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/recorder.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::is_same_block;
using testing::Spy;

struct NamedStage {
  const char* name;
  Ref<Resource> (*on)(Ref<Resource> upstream);
};

const NamedStage named_stages[] = {
    // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"cache", [](Ref<Resource> upstream) -> Ref<Resource> { return make<Cache>(upstream); }},
    {"limit", [](Ref<Resource> upstream) -> Ref<Resource> { return make<Limit>(upstream, 1_GiB); }},
    {"trace",
     [](Ref<Resource> upstream) -> Ref<Resource> { return make<Recorder>(upstream, "/dev/null"); }},
};

class EveryStage : public ::testing::TestWithParam<NamedStage> {
 protected:
  const Ref<Spy> spy_ = make<Spy>(make<SimulatedDevice>(), 4_KiB);
  const Ref<Resource> stage_ = GetParam().on(spy_);
};
const NamedStage retry_stage = {
    "retry", [](Ref<Resource> upstream) -> Ref<Resource> { return make<Retry>(upstream); }};
INSTANTIATE_TEST_SUITE_P(PassingThrough, EveryStage, ::testing::Values(retry_stage),
                         [](const auto& stage) { return std::string(stage.param.name); });
INSTANTIATE_TEST_SUITE_P(All, EveryStage, ::testing::ValuesIn(named_stages),
                         [](const auto& stage) { return std::string(stage.param.name); });

TEST_P(EveryStage, HandsARequestOnWithAllThatItAsksFor) {
  const Block block = stage_->allocate({.bytes = 64_KiB, .alignment = 2_KiB, .stream = {.id = 5}});
  ASSERT_EQ(spy_->requests.size(), 1U);
  EXPECT_EQ(spy_->requests[0].bytes, 64_KiB);
  EXPECT_EQ(spy_->requests[0].alignment, 2_KiB);
  EXPECT_EQ(spy_->requests[0].stream, (Stream{.id = 5}));
  stage_->deallocate(block);
}

TEST_P(EveryStage, HandsOutTheUpstreamsMemoryAndGivesBackItsBlockOnTheStreamOfTheFree) {
  const Block block = stage_->allocate({.bytes = 64_KiB, .alignment = 0, .stream = {.id = 5}});
  const Block below = spy_->granted.at(0);
  EXPECT_EQ(block.memory, below.memory);
  EXPECT_EQ(block.offset, 4_KiB);
  EXPECT_EQ(block.bytes, below.bytes);
  EXPECT_EQ(block.requested, 64_KiB);
  EXPECT_TRUE(stage_->also_used_on(block, {.id = 8}));
  if (dynamic_cast<const Pool*>(stage_.get()) != nullptr) {
    EXPECT_TRUE(spy_->also_used.empty()) << "a pool sees to the order itself";
  } else {
    ASSERT_EQ(spy_->also_used.size(), 1U);
    EXPECT_TRUE(is_same_block(spy_->also_used[0].block, below));
    EXPECT_EQ(spy_->also_used[0].stream.id, 8U);
  }
  EXPECT_TRUE(stage_->deallocate(block, {.id = 9}));
  stage_->trim();
  ASSERT_EQ(spy_->freed.size(), 1U);
  EXPECT_TRUE(is_same_block(spy_->freed[0].block, below));
  EXPECT_EQ(spy_->freed[0].stream.id, 9U);
}

TEST_P(EveryStage, HandsTheTurnsOfALoopOn) {
  stage_->cycle();
  stage_->cycle();
  EXPECT_EQ(spy_->cycles, 2U);
}

TEST_P(EveryStage, SaysWhyARequestFailedAndCountsIt) {
  spy_->before_request = [](const Request&) { return Errc::device_failed; };
  for (int i = 0; i < 2; ++i) {
    const Expected<Block> block = stage_->try_allocate({.bytes = 1_MiB});
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::device_failed);
  }
  EXPECT_EQ(stage_->stats().failures, 2U);
  EXPECT_EQ(stage_->validate(), "");
}

// What a stage that passes blocks through says of them is its upstream's.
class EveryStageWithRecords : public EveryStage {};
INSTANTIATE_TEST_SUITE_P(All, EveryStageWithRecords, ::testing::ValuesIn(named_stages),
                         [](const auto& stage) { return std::string(stage.param.name); });

TEST_P(EveryStageWithRecords, SaysWhatIsOut) {
  testing::Ledger ledger(*stage_);
  for (const std::size_t bytes : {1_MiB, 3_MiB, 2_MiB})
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  EXPECT_EQ(stage_->outstanding().blocks, 3U);
  EXPECT_EQ(stage_->outstanding().bytes, 6_MiB);
  EXPECT_EQ(stage_->outstanding().largest, 3_MiB);
  ledger.free_all();
}

TEST_P(EveryStageWithRecords, ResetsThePeaksToWhatIsLiveOrToAFloor) {
  const Block held = stage_->allocate(1_MiB);
  stage_->deallocate(stage_->allocate(8_MiB));
  stage_->trim();
  stage_->reset_peaks();
  Stats stats = stage_->stats();
  EXPECT_EQ(stats.live_requested.peak, 1_MiB);
  EXPECT_EQ(stats.live_granted.peak, 1_MiB);
  EXPECT_EQ(stats.live_blocks.peak, 1U);
  EXPECT_EQ(stats.reserved.peak, stats.reserved.current);
  Stats floor;
  floor.live_requested.peak = 2_MiB;
  floor.live_granted.peak = 3_MiB;
  floor.live_blocks.peak = 4;
  floor.reserved.peak = 5_MiB;
  stage_->reset_peaks(floor);
  stats = stage_->stats();
  EXPECT_EQ(stats.live_requested.peak, 2_MiB);
  EXPECT_EQ(stats.live_granted.peak, 3_MiB);
  EXPECT_EQ(stats.live_blocks.peak, 4U);
  EXPECT_EQ(stats.reserved.peak, 5_MiB);
  stage_->deallocate(held);
}

}  // namespace
}  // namespace cistern
