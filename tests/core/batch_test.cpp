// Batches in every stage: all of the requests or none, with the effects of the single requests, and
// what is paid once a call paid once for all.
#include "cistern/core/batch.hpp"

#include <array>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/pool/coalesce.hpp"
#include "cistern/stack/stack.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

/// A stack around a simulated device that the test can make fail. `virtual` and stages that are to
/// meet the device's own batches stand on it directly, the others on a spy between.
class Rig {
 public:
  Rig(const std::string& stack, const SimulatedDevice::Options& options, bool spied = true)
      : device_(make<SimulatedDevice>(options)), spy_(make<testing::Spy>(device_)) {
    stack_ = open(stack, {{"mine", !spied || is_direct(stack) ? Ref<Resource>(device_) : spy_},
                          {"spare", make<SimulatedDevice>(spare())}});
    spy_->before_request = [failing = failing_](const Request&) {
      const bool fails = failing->from != 0 && ++failing->calls >= failing->from;
      return fails ? std::optional(failing->code) : std::nullopt;
    };
  }

  [[nodiscard]] Resource& operator*() const { return *stack_; }
  [[nodiscard]] Resource* operator->() const { return &*stack_; }
  [[nodiscard]] SimulatedDevice& device() const { return *device_; }

  /// All calls from the n-th on fail; 0 for none. (Of a device without a spy only the n-th.)
  void fail_from(std::size_t n, Errc code) const {
    *failing_ = {.from = n, .calls = 0, .code = code};
    if (is_direct(stack_.text())) device_->fail_next(n);
  }

 private:
  struct Failing {
    std::size_t from = 0;
    std::size_t calls = 0;
    Errc code = Errc::out_of_memory;
  };
  static bool is_direct(const std::string& stack) {
    return stack == "mine" || stack.starts_with("retry") ||
           stack.find("virtual") != std::string::npos;
  }
  static SimulatedDevice::Options spare() {
    return {.capacity = 64_KiB, .first_address = 1_GiB << 10U};
  }

  Ref<SimulatedDevice> device_;
  Ref<testing::Spy> spy_;
  std::shared_ptr<Failing> failing_ = std::make_shared<Failing>();
  Stack stack_;
};

class EveryBatch : public ::testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] static Rig rig(std::size_t capacity = std::size_t{64} << 20U) {
    return Rig(GetParam(), {.capacity = capacity});
  }
  [[nodiscard]] static bool takes_all_at_once() {
    return GetParam().find("fallback") == std::string::npos;  // which asks again, one by one
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, EveryBatch,
    ::testing::Values("mine", "limit(200MiB) > mine", "retry(attempts=2) > mine",
                      "trace(\"/dev/null\") > mine", "resident > mine", "cache > mine",
                      "cache(buckets=fit) > mine", "cache(max_bytes=100KiB, per_bucket=2) > mine",
                      "cache(when_full=reject, max_bytes=64KiB) > mine", "cache > cache > mine",
                      "limit(200MiB) > cache > resident > mine", "coalesce > mine",
                      "coalesce(place=first, classes=none, regions=none) > mine",
                      "coalesce > resident > mine", "cache > coalesce > mine", "pytorch > mine",
                      "virtual(page=64KiB) > mine", "resident > virtual(page=4KiB) > mine",
                      "fallback(mine, spare)", "fallback(cache > mine, cache > spare)",
                      "deferred(cache > mine, otherwise=spare)", "tier(B) > mine"));

std::vector<Request> requests_of(std::initializer_list<std::size_t> sizes) {
  std::vector<Request> requests;
  for (const std::size_t bytes : sizes)
    requests.push_back({.bytes = bytes});
  return requests;
}

std::vector<Request> random_requests(testing::Random& random) {
  std::vector<Request> requests(random.below(12));
  for (Request& request : requests) {
    request.bytes = random.chance(15) ? 0 : random.size(18);
    if (random.chance(20)) request.alignment = std::size_t{1} << random.below(15);
    request.stream.id = random.below(2);
  }
  return requests;
}

TEST_P(EveryBatch, HasTheEffectsOfTheSingleRequests) {
  const std::uint64_t seed = testing::seed_or(21);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  const Rig at_once = rig();
  const Rig one_by_one = rig();
  Ledger batches(*at_once);
  Ledger singles(*one_by_one);
  for (int step = 0; step < 200; ++step) {
    const std::vector<Request> requests = random_requests(random);
    ASSERT_TRUE(batches.allocate_batch(requests));
    for (const Request& request : requests)
      ASSERT_TRUE(singles.allocate(request));
    batches.expect_in_order();
    singles.expect_in_order();
    const Stats a = at_once->stats();
    const Stats b = one_by_one->stats();
    EXPECT_EQ(a.live_blocks, b.live_blocks);
    EXPECT_EQ(a.live_requested, b.live_requested);
    EXPECT_EQ(a.allocations, b.allocations);
    EXPECT_EQ(a.frees, b.frees);
    EXPECT_EQ(a.failures, b.failures);
    EXPECT_EQ(a.hits + a.misses, a.allocations);
    while (batches.size() > 12) {
      const std::size_t victim = random.below(batches.size());
      const Stream stream{.handle = nullptr, .id = random.below(2)};
      batches.free(victim, stream);
      singles.free(victim, stream);
    }
    if (::testing::Test::HasFailure()) return;
  }
  batches.free_all();
  singles.free_all();
  testing::expect_nothing_held(*at_once);
  testing::expect_nothing_held(*one_by_one);
}

// The device fails from the n-th call on, with live and idle blocks about, for want of memory (so
// that pools give back what is idle and ask again) or otherwise.
TEST_P(EveryBatch, ThatFailsHalfWayLeavesNothingBehind) {
  const std::vector<Request> requests =
      requests_of({3000, 0, 200'000, 5000, 20_MiB, 70'000, 1_MiB, 30_MiB});
  for (const Errc code : {Errc::out_of_memory, Errc::device_failed}) {
    bool has_failed = false;
    bool has_passed = false;
    for (std::size_t n = 1; n <= 12; ++n) {
      SCOPED_TRACE(n);
      const Rig rig = EveryBatch::rig(256_MiB);
      Ledger ledger(*rig);
      for (const std::size_t bytes : std::array<std::size_t, 4>{3000, 5000, 9000, 200'000})
        ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
      ledger.free(0);
      ledger.free(0);
      const Stats before = rig->stats();
      rig.fail_from(n, code);
      const bool granted = ledger.allocate_batch(requests);
      (granted ? has_passed : has_failed) = true;
      ledger.expect_in_order();
      if (!granted) {
        const Stats after = rig->stats();
        EXPECT_EQ(after.failures, before.failures + 1);
        EXPECT_EQ(after.allocations - after.frees, before.allocations - before.frees);
        if (takes_all_at_once()) {
          EXPECT_EQ(after.allocations, before.allocations);
          EXPECT_EQ(after.live_granted, before.live_granted);  // its peak too
          EXPECT_EQ(after.hits, before.hits);
          EXPECT_LE(after.cached.current, before.cached.current);
        }
      }
      rig.fail_from(0, code);
      EXPECT_TRUE(ledger.allocate_batch(requests));  // a failure poisons nothing
      ledger.expect_in_order();
      ledger.free_all();
      testing::expect_nothing_held(*rig);
      EXPECT_EQ(rig.device().used(), 0U);
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(has_failed || GetParam().starts_with("fallback") ||
                GetParam().starts_with("retry"));
    EXPECT_TRUE(has_passed);
  }
}

// The same where only the n-th call fails: what recovers, recovers.
TEST_P(EveryBatch, ThatFailsOnceLeavesNothingBehindOrIsWhole) {
  const std::vector<Request> requests = requests_of({3000, 200'000, 5000, 70'000, 1_MiB});
  for (std::uint64_t n = 1; n <= 8; ++n) {
    SCOPED_TRACE(n);
    const Rig rig = EveryBatch::rig();
    Ledger ledger(*rig);
    rig.device().fail_next(n);
    ledger.allocate_batch(requests);
    ledger.expect_in_order();
    ledger.free_all();
    testing::expect_nothing_held(*rig);
  }
}

TEST_P(EveryBatch, ThatFindsTheDeviceTooSmallLeavesNothingBehind) {
  const Rig rig = EveryBatch::rig(2_MiB);
  Ledger ledger(*rig);
  ASSERT_TRUE(ledger.allocate({.bytes = 100'000}));
  std::vector<Request> requests(30, Request{.bytes = 100'000});
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_FALSE(ledger.allocate_batch(requests));
    ledger.expect_in_order();
  }
  EXPECT_EQ(rig->stats().failures, 3U);
  requests[29].bytes = unbounded;
  EXPECT_FALSE(ledger.allocate_batch(requests));
  requests[29] = {.bytes = 1, .alignment = 3};
  requests.resize(5);
  requests.push_back({.bytes = 1, .alignment = 3});
  EXPECT_FALSE(ledger.allocate_batch(requests));
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*rig);
}

TEST_P(EveryBatch, SurvivesAHostWithoutMemoryForRecords) {
  const std::vector<Request> requests(80, Request{.bytes = 5000});
  const testing::CaughtReports reports;
  bool has_failed = true;
  for (int n = 1; has_failed && n < 400; ++n) {
    SCOPED_TRACE(n);
    const Rig rig(GetParam(), {.capacity = 64_MiB}, false);
    Ledger ledger(*rig);
    ASSERT_TRUE(ledger.allocate({.bytes = 5000}));
    ASSERT_TRUE(ledger.allocate({.bytes = 5000}));
    ledger.free(0);
    std::vector<Block> blocks(requests.size());
    Expected<void> granted;
    {
      const testing::FailingNew failing(n);
      granted = rig->try_allocate_batch(requests, blocks);
      has_failed = testing::FailingNew::has_failed();
    }
    EXPECT_EQ(rig->validate(), "");
    EXPECT_EQ(rig->stats().live_blocks.current, granted ? 81U : 1U);
    if (!granted) {
      EXPECT_EQ(rig->stats().failures, 1U);
    }
    for (const Block& block : blocks)
      EXPECT_TRUE(rig->deallocate(block));
    ledger.free_all();
    testing::expect_nothing_held(*rig);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_FALSE(has_failed);
}

TEST_P(EveryBatch, OfNothingCallsNothing) {
  const Rig rig = EveryBatch::rig();
  Ledger ledger(*rig);
  const Stats before = rig->stats();
  EXPECT_TRUE(ledger.allocate_batch({}));
  EXPECT_TRUE(ledger.allocate_batch(requests_of({0, 0, 0})));
  EXPECT_EQ(rig->stats(), before);
  EXPECT_EQ(rig.device().allocation_calls(), 0U);
  EXPECT_EQ(rig.device().residency_calls(), 0U);
}

// --- what single stages do ---

TEST(Batch, OfAHundredIsCommittedOnce) {
  for (const char* text : {"resident > simulated", "cache > resident > simulated",
                           "limit(1GiB) > cache > resident > simulated",
                           "fallback(cache > resident > simulated, host)"}) {
    const Stack stack = open(text);
    const std::vector<Request> requests(100, Request{.bytes = 10_KiB});
    std::vector<Buffer> buffers = stack.buffers(requests);
    EXPECT_EQ(stack->stats().residency_commits, 1U) << text;
    EXPECT_EQ(stack->stats().resident.current, stack->stats().reserved.current);
    EXPECT_EQ(stack->stats().live_requested.current, 1000_KiB);
    buffers.clear();
    stack->trim();
    EXPECT_EQ(stack->stats().resident.current, 0U);
    testing::expect_nothing_held(*stack);
  }
}

// No device call, and nothing of the heap.
TEST(Batch, OfHitsCallsNobody) {
  for (const char* text :
       {"cache > simulated", "cache(buckets=fit) > simulated", "coalesce > simulated",
        "limit(1GiB) > cache > resident > simulated", "virtual(page=64KiB) > simulated"}) {
    const Stack stack = open(text);
    const std::vector<Request> requests = requests_of({100, 100, 5000, 70'000, 70'000});
    const auto turn = [&] {
      std::vector<Block> blocks(requests.size());
      const testing::FailingNew failing(stack->stats().allocations == 0 ? 1000 : 1);
      EXPECT_TRUE(stack->try_allocate_batch(requests, blocks)) << text;
      for (const Block& block : blocks)
        stack->deallocate(block);
    };
    turn();
    const Stats before = stack->stats();
    turn();
    const Stats after = stack->stats();
    EXPECT_EQ(after.device_allocations, before.device_allocations);
    EXPECT_EQ(after.hits, before.hits + 5) << text;
    EXPECT_EQ(after.misses, before.misses);
  }
}

TEST(Batch, TheMissesOfACacheAreOneBatchUpstream) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto cache = make<Cache>(spy);
  cache->deallocate(cache->allocate(5000));
  const std::vector<Block> blocks = cache->allocate_batch(requests_of({70'000, 5000, 0, 100}));
  EXPECT_EQ(cache->stats().hits, 1U);
  EXPECT_EQ(cache->stats().misses, 3U);
  ASSERT_EQ(spy->requests.size(), 5U);  // nothing is asked for in the places of the others
  EXPECT_EQ(spy->requests[1].bytes, 72_KiB);
  EXPECT_EQ(spy->requests[2].bytes, 0U);
  EXPECT_EQ(spy->requests[3].bytes, 0U);
  EXPECT_EQ(spy->requests[4].bytes, 512U);
  for (const Block& block : blocks)
    cache->deallocate(block);
  testing::expect_all_accounted_for(*cache);
}

TEST(Batch, ACacheGivesBackWhatIsIdleForABatchThatIsRefused) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB});
  const auto cache = make<Cache>(device, Cache::Options{.idle_ratio = Cache::no_ratio});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i)
    blocks.push_back(cache->allocate(200_KiB));
  for (const Block& block : blocks)
    cache->deallocate(block);
  // A block that is set aside for the batch is not given back for it.
  Ledger ledger(*cache);
  EXPECT_TRUE(ledger.allocate_batch(requests_of({300_KiB, 200_KiB, 300_KiB})));
  EXPECT_EQ(cache->stats().hits, 1U);
  ledger.expect_in_order();
  EXPECT_FALSE(ledger.allocate_batch(requests_of({100_KiB, 400_KiB})));
  ledger.free_all();
  testing::expect_all_accounted_for(*cache);
}

TEST(Batch, ThatTheDeviceCanNeverGiveCostsNoIdleBlock) {
  const auto cache =
      make<Cache>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}));
  cache->deallocate(cache->allocate(200_KiB));
  const std::size_t idle = cache->stats().cached.current;
  std::vector<Block> blocks(3);
  for (const auto& sizes : {requests_of({100, 2_MiB, 100}), requests_of({600_KiB, 600_KiB, 100}),
                            requests_of({200_KiB, unbounded, unbounded})}) {
    EXPECT_FALSE(cache->try_allocate_batch(sizes, blocks));
    EXPECT_EQ(cache->stats().cached.current, idle);
    EXPECT_EQ(cache->validate(), "");
  }
}

TEST(Batch, WhileACacheAsksItsBoundsHold) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto cache = make<Cache>(spy, Cache::Options{.max_bytes = 1_MiB, .idle_ratio = 0.5});
  const auto expect_bounds = [&] {
    const Stats stats = cache->stats();
    EXPECT_LE(stats.cached.current, 1_MiB);
    EXPECT_LE(stats.reserved.current, 3 * std::max(stats.live_granted.peak, 1_MiB));
  };
  spy->before_request = [&](const Request&) {
    expect_bounds();
    return std::optional<Errc>();
  };
  spy->before_free = [&](const Block&) { expect_bounds(); };
  testing::Random random(5);
  Ledger ledger(*cache);
  for (int step = 0; step < 300; ++step) {
    ASSERT_TRUE(ledger.allocate_batch(random_requests(random)));
    ledger.expect_in_order();
    while (ledger.size() > 10)
      ledger.free(random.below(ledger.size()));
    if (::testing::Test::HasFailure()) return;
  }
  ledger.free_all();
}

TEST(Batch, ALimitIsChargedTheSumOrNothing) {
  const auto device = make<SimulatedDevice>();
  const auto limit = make<Limit>(device, std::size_t{10'000});
  std::vector<Block> blocks(2);
  const auto refused = limit->try_allocate_batch(requests_of({6000, 4001}), blocks);
  ASSERT_FALSE(refused);
  EXPECT_EQ(describe(refused.error()),
            "limit refused 10001 bytes: over the limit (10000 bytes available)");
  EXPECT_EQ(device->allocation_calls(), 0U);
  EXPECT_EQ(limit->charged(), 0U);
  ASSERT_TRUE(limit->try_allocate_batch(requests_of({6000, 4000}), blocks));
  EXPECT_EQ(limit->charged(), 10'000U);
  for (const Block& block : blocks)
    limit->deallocate(block);
  EXPECT_FALSE(limit->try_allocate_batch(requests_of({unbounded, 2}), blocks));
  EXPECT_EQ(limit->charged(), 0U);
  const auto boundless = make<Limit>(device, unbounded);
  EXPECT_FALSE(boundless->try_allocate_batch(requests_of({unbounded, 2}), blocks));
  EXPECT_EQ(boundless->charged(), 0U);
  testing::expect_nothing_held(*limit);
}

TEST(Batch, TheErrorSaysHowMuchWasStillToBeAskedFor) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 10 * 512});
  std::vector<Block> blocks(4);
  const auto refused = device->try_allocate_batch(requests_of({512, 512, 9 * 512, 512}), blocks);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().requested, 10U * 512);
  EXPECT_EQ(refused.error().available, 8U * 512);
  EXPECT_THROW(static_cast<void>(device->allocate_batch(requests_of({4096, 4096}))), OutOfMemory);
}

// As much as all of it is short of, in one attempt.
TEST(Batch, IsRecoveredAsAWhole) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB});
  const auto hoard = make<Cache>(device, Cache::Options{.idle_ratio = Cache::no_ratio});
  std::vector<Block> idle;
  for (int i = 0; i < 16; ++i)
    idle.push_back(hoard->allocate(60_KiB));
  for (const Block& block : idle)
    hoard->deallocate(block);
  const auto retry = make<Retry>(device, Retry::Options{.attempts = 1});
  const std::vector<Request> requests(8, Request{.bytes = 60_KiB});
  const std::vector<Block> blocks = retry->allocate_batch(requests);
  EXPECT_EQ(retry->recoveries().attempts, 1U);
  EXPECT_EQ(retry->stats().failures, 0U);
  std::vector<Block> none(30);
  EXPECT_FALSE(retry->try_allocate_batch(std::vector<Request>(30, {.bytes = 60_KiB}), none));
  EXPECT_EQ(retry->stats().failures, 1U);
  for (const Block& block : blocks)
    retry->deallocate(block);
}

TEST(Batch, AFallbackTakesTheWholeFromTheFirstOrEachFromWhicheverCan) {
  const Stack stack = open("fallback(simulated(1MiB), simulated(1MiB, first_address=1TiB))");
  Ledger ledger(*stack);
  ASSERT_TRUE(ledger.allocate_batch(requests_of({512_KiB, 256_KiB})));
  EXPECT_EQ(stack->stats().spilled.current, 0U);
  ASSERT_TRUE(ledger.allocate_batch(requests_of({256_KiB, 512_KiB, 256_KiB})));
  EXPECT_EQ(stack->stats().spilled.current, 768_KiB);
  EXPECT_FALSE(ledger.allocate_batch(requests_of({256_KiB, 1})));
  EXPECT_EQ(stack->stats().failures, 1U);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*stack);
}

TEST(Batch, APoolObtainsNoMoreThanItsRequestsNeed) {
  const auto coalesce = make<Coalesce>(make<SimulatedDevice>());
  Ledger ledger(*coalesce);
  ASSERT_TRUE(ledger.allocate_batch(std::vector<Request>(100, {.bytes = 20'000})));
  EXPECT_LE(coalesce->stats().device_allocations, 2U);
  EXPECT_EQ(coalesce->stats().misses, coalesce->stats().device_allocations);
  ledger.free_all();
  testing::expect_all_accounted_for(*coalesce);
}

TEST(Batch, BuffersFreeThemselvesOnTheirStreams) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const Stack stack = open("mine", {{"mine", spy}});
  const std::array<Request, 2> requests = {{{.bytes = 100}, {.bytes = 200, .stream = {.id = 3}}}};
  {
    const std::vector<Buffer> buffers = stack.buffers(requests);
    EXPECT_EQ(buffers[1].bytes(), 200U);
    EXPECT_EQ(buffers[1].resource(), &*stack);
  }
  ASSERT_EQ(spy->freed.size(), 2U);
  EXPECT_EQ(spy->freed[1].stream.id, 3U);
  EXPECT_THROW(static_cast<void>(stack.buffers(std::vector<Request>{{.bytes = unbounded}})),
               OutOfMemory);
}

#ifndef NDEBUG
TEST(BatchDeathTest, NeedsTwoSpansOfOneSize) {
  const std::vector<Request> requests(3, Request{.bytes = 1});
  for (const char* text : {"simulated", "cache > simulated", "coalesce > simulated",
                           "virtual > simulated", "limit(1GiB) > simulated"}) {
    const Stack stack = open(text);
    std::vector<Block> blocks(2);
    EXPECT_DEATH(static_cast<void>(stack->try_allocate_batch(requests, blocks)), "size");
  }
}
#endif

}  // namespace
}  // namespace cistern
