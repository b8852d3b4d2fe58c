// The out-of-memory report: each figure is that of the stage that knows it, the texts read well,
// and none of it needs the heap.
#include "cistern/core/shortage.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/size_tally.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/devices.hpp"
#include "support/failing_new.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::device_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// The report of a request that fails.
Shortage shortage_of(Resource& resource, const Request& request) {
  const Expected<Block> block = resource.try_allocate(request);
  EXPECT_FALSE(block);
  return explain_failure(resource, request, block.error());
}

TEST(Shortage, SaysWhatEveryStageKnows) {
  const auto device = device_of(16_MiB);
  const Stack stack =
      open("limit(14MiB) > cache(idle_ratio=none) > limit(15MiB) > mine", {{"mine", device}});
  const Block first = stack->allocate(8'000'000);
  const Block second = stack->allocate(1_MiB);
  const Block idle = stack->allocate(512_KiB);
  stack->deallocate(idle);
  const Shortage shortage = shortage_of(*stack, {.bytes = 6_MiB, .alignment = 4_KiB});
  EXPECT_EQ(shortage.error.code, Errc::over_limit);
  EXPECT_EQ(shortage.error.stage, std::string("limit"));
  EXPECT_EQ(shortage.requested, 6_MiB);
  EXPECT_EQ(shortage.alignment, 4_KiB);
  EXPECT_EQ(shortage.live_requested, 8'000'000 + 1_MiB);
  EXPECT_EQ(shortage.live_granted, first.bytes + second.bytes);
  EXPECT_EQ(shortage.cached, 512_KiB);
  EXPECT_EQ(shortage.reserved, device->used());
  EXPECT_EQ(shortage.limit, 14_MiB);  // the tightest of the two
  EXPECT_EQ(shortage.limit_left, 13_MiB - 8'000'000);
  EXPECT_EQ(shortage.device, std::string("simulated"));
  EXPECT_EQ(shortage.device_total, 16_MiB);
  EXPECT_EQ(shortage.device_free, 16_MiB - device->used());
  EXPECT_EQ(shortage.holes, 512_KiB);
  EXPECT_EQ(shortage.largest_hole, 512_KiB);
  EXPECT_EQ(shortage.fragmentation(), 0U);
  EXPECT_EQ(shortage.attempts, 0U);
  ASSERT_EQ(shortage.size_count, 3U);
  EXPECT_EQ(shortage.sizes[0].bytes, first.bytes);
  EXPECT_EQ(shortage.sizes[0].live, first.bytes);
  EXPECT_EQ(shortage.sizes[2].bytes, 512_KiB);
  EXPECT_EQ(shortage.sizes[2].idle, 512_KiB);
  stack->deallocate(first);
  stack->deallocate(second);
}

TEST(Shortage, SaysWhatRecoveryTried) {
  const auto device = device_of(16_MiB);
  const Ref<Cache> other = make<Cache>(device, Cache::Options{.idle_ratio = Cache::no_ratio});
  other->deallocate(other->allocate(2_MiB));
  const Stack stack = open("limit(1GiB) > retry(window=1000s) > cache > mine", {{"mine", device}});
  auto* const retry = find_stage<Retry>(*stack);
  retry->add_callback([](std::size_t) { return 77; });
  const Block live = stack->allocate(8_MiB);
  const Shortage shortage = shortage_of(*stack, {.bytes = 9_MiB});
  EXPECT_EQ(shortage.attempts, 3U);
  ASSERT_EQ(shortage.step_count, 3U);
  EXPECT_EQ(shortage.steps[0].name, std::string("own idle memory"));
  EXPECT_EQ(shortage.steps[0].returned, 0U);
  EXPECT_EQ(shortage.steps[1].name, std::string("other pools"));
  EXPECT_EQ(shortage.steps[1].returned, 2_MiB);
  EXPECT_EQ(shortage.steps[2].name, std::string("callbacks"));
  EXPECT_EQ(shortage.steps[2].returned, 3 * 77U);
  EXPECT_THAT(shortage.text(), HasSubstr("\n  recovery       3 attempts; returned: own idle memory "
                                         "0 B, other pools 2.00 MiB, callbacks 231 B\n"));
  // A failure that was not recovered has nothing of the former one's.
  EXPECT_EQ(shortage_of(*stack, {.bytes = 1_GiB + 1}).attempts, 0U);
  EXPECT_EQ(shortage_of(*stack, {.bytes = 17_MiB}).attempts, 0U);
  stack->deallocate(live);
}

TEST(Shortage, OfARecoveryThatMayDoNothingSaysSoOnALineOfItsOwn) {
  const Stack stack = open("retry(attempts=0) > cache > mine", {{"mine", device_of(16_MiB)}});
  const Block live = stack->allocate(8_MiB);
  EXPECT_THAT(shortage_of(*stack, {.bytes = 9_MiB}).text(),
              HasSubstr("\n  recovery       0 attempts; returned: own idle memory 0 B, other pools "
                        "0 B, callbacks 0 B\n"));
  stack->deallocate(live);
}

TEST(Shortage, OfARequestWithinARecoveryHasNoneOfItsOwn) {
  const auto device = device_of(16_MiB);
  const Stack stack = open("retry(window=1000s) > mine", {{"mine", device}});
  const Block live = stack->allocate(8_MiB);
  EXPECT_EQ(shortage_of(*stack, {.bytes = 9_MiB}).attempts, 3U);
  int nested = 0;
  find_stage<Retry>(*stack)->add_callback([&](std::size_t) {
    EXPECT_EQ(shortage_of(*stack, {.bytes = 9_MiB}).attempts, 0U);
    ++nested;
    return 0;
  });
  EXPECT_EQ(shortage_of(*stack, {.bytes = 9_MiB}).attempts, 3U);
  EXPECT_EQ(nested, 3);
  stack->deallocate(live);
}

TEST(Shortage, KnowsHowMuchOfItIsFragmentation) {
  Shortage shortage{.error = {.code = Errc::out_of_memory, .available = 0}, .requested = 10};
  EXPECT_EQ(shortage.fragmentation(), 0U);  // nothing is idle
  shortage.add_holes(4, 4);
  EXPECT_EQ(shortage.fragmentation(), 0U);  // it is all one piece
  shortage.add_holes(3, 2);
  EXPECT_EQ(shortage.fragmentation(), 3U);  // 6 are missing, 3 of them lie idle elsewhere
  shortage.add_holes(30, 3);
  EXPECT_EQ(shortage.fragmentation(), 6U);  // in one piece, it would all have fitted
  shortage.error.available = 8;
  EXPECT_EQ(shortage.fragmentation(), 2U);
  shortage.error.available = 12;
  EXPECT_EQ(shortage.fragmentation(), 0U);  // not for want of room
  shortage.error = {.code = Errc::too_large};
  EXPECT_EQ(shortage.fragmentation(), 0U);
}

TEST(Shortage, NamesTheFiveSizesThatHoldMost) {
  SizeTally tally;
  for (std::size_t size = 1; size <= 9; ++size) {
    for (std::size_t count = 0; count < 10 - size; ++count)
      tally.add(size, count % 2 == 0);
  }
  Shortage shortage;
  shortage.add_sizes(tally);
  ASSERT_EQ(shortage.size_count, 5U);
  // 9, 16, 21, 24, 25, 24, 21, 16, 9 bytes
  EXPECT_EQ(shortage.sizes[0].bytes, 5U);
  EXPECT_EQ(shortage.sizes[0].live, 15U);
  EXPECT_EQ(shortage.sizes[0].idle, 10U);
  for (std::size_t i = 1; i < 5; ++i) {
    const auto held = [&](std::size_t at) {
      return shortage.sizes[at].live + shortage.sizes[at].idle;
    };
    EXPECT_LE(held(i), held(i - 1));
    EXPECT_GE(held(i), 21U);
  }
  SizeTally inner;
  inner.add(1000, true);
  shortage.add_sizes(inner);
  EXPECT_EQ(shortage.sizes[0].bytes, 5U);  // the outermost pool's stay
}

TEST(Shortage, ATallyOfMoreSizesThanItHoldsLeavesSomeOut) {
  SizeTally tally;
  for (std::size_t size = 1; size <= 5000; ++size)
    tally.add(size, true);
  std::size_t sizes = 0;
  tally.each([&](const Shortage::Size& each) {
    EXPECT_EQ(each.live, each.bytes);
    ++sizes;
  });
  EXPECT_GT(sizes, 256U);
  EXPECT_LE(sizes, 512U);
}

TEST(Shortage, IsCarriedByTheExceptionAndReadsWell) {
  const auto device = device_of(16_MiB);
  const Stack stack = open("limit(1GiB) > cache > mine", {{"mine", device}});
  const Block live = stack->allocate(12_MiB);
  try {
    stack->deallocate(stack->allocate(6_MiB));
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_STREQ(error.what(),
                 "simulated refused 6291456 bytes: out of memory (4194304 bytes available); live "
                 "12.00 MiB, idle 0 B, limit 1.00 GiB, device free 4.00 MiB");
    EXPECT_EQ(error.shortage().requested, 6_MiB);
    EXPECT_EQ(error.shortage().text(),
              "simulated refused 6291456 bytes: out of memory (4194304 bytes available)\n"
              "  requested      6.00 MiB\n"
              "  live           12.00 MiB requested, 12.00 MiB granted\n"
              "  cached         0 B\n"
              "  reserved       12.00 MiB\n"
              "  limit          1.00 GiB, of which 1012.00 MiB are left\n"
              "  device         simulated: 16.00 MiB in all, 4.00 MiB free\n"
              "  holes          0 B, the largest 0 B\n"
              "  fragmentation  0 B of the shortage\n"
              "  most in blocks 12.00 MiB each: 12.00 MiB live, 0 B idle\n");
  }
  stack->deallocate(live);
}

TEST(Shortage, OfAnotherFailureIsShort) {
  const auto device = device_of(16_MiB);
  try {
    static_cast<void>(device->allocate({.bytes = 1, .alignment = 3}));
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_STREQ(error.what(),
                 "simulated refused: the alignment is not a power of two that the device can give");
    EXPECT_THAT(error.shortage().text(), StartsWith(std::string(error.what()) + "\n"));
  }
}

TEST(Shortage, ItsLineIsOneHoweverLargeTheFigures) {
  Shortage shortage{.error = {.code = Errc::over_limit,
                              .stage = "a stage of a name that is long",
                              .requested = unbounded,
                              .available = unbounded - 1},
                    .requested = unbounded,
                    .live_granted = unbounded,
                    .limit = unbounded - 1,
                    .device_total = unbounded,
                    .device_free = unbounded,
                    .holes = unbounded};
  EXPECT_LT(std::string(OutOfMemory(shortage).what()).size(), 224U);
  EXPECT_EQ(std::string(OutOfMemory(shortage).what()).find('\n'), std::string::npos);
  for (std::size_t size = 1; size < 64; ++size) {
    std::array<char, 65> line{};
    line.fill('#');
    EXPECT_EQ(shortage.print_line(line.data(), size), size - 1);
    EXPECT_EQ(line[size - 1], '\0');
    EXPECT_EQ(line[size], '#');
  }
}

TEST(Shortage, IsMadeWithoutTheHeap) {
  const auto simulated = device_of(1_MiB);
  for (const Ref<Resource>& device :
       {Ref<Resource>(simulated), Ref<Resource>(make<HostDevice>())}) {
    const Ref<Resource> stack =
        make<Limit>(make<Retry>(make<Cache>(make<Limit>(device, 1_MiB))), 16_MiB);
    const Block live = stack->allocate(600_KiB);
    const std::ptrdiff_t blocks = testing::heap_blocks();
    {
      const testing::FailingNew failing(1);
      const Request request{.bytes = 700_KiB};
      const Expected<Block> block = stack->try_allocate(request);
      ASSERT_FALSE(block);
      const Shortage shortage = explain_failure(*stack, request, block.error());
      const OutOfMemory exception(shortage);
      EXPECT_EQ(shortage.live_requested, 600_KiB);
      EXPECT_FALSE(testing::FailingNew::has_failed());
    }
    EXPECT_EQ(testing::heap_blocks(), blocks);
    stack->deallocate(live);
  }
}

}  // namespace
}  // namespace cistern
