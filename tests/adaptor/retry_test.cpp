// Retry: so many attempts and no more, budgets, the steps and their order, callbacks that do what
// callbacks do, and what the figures say afterwards.
#include "cistern/adaptor/retry.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/devices.hpp"
#include "support/failing_new.hpp"
#include "support/hoards.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using namespace std::chrono_literals;
using testing::device_of;
using testing::hoard;
using testing::Spy;
using testing::unbounded_cache;
using Step = Retry::Step;

// The time that the tests' retries live in; it stands still unless a test moves it.
thread_local Retry::Clock::time_point the_time;
Retry::Options retry_options(unsigned attempts, std::chrono::nanoseconds window = 1s) {
  return {.attempts = attempts, .window = window, .now = []() noexcept { return the_time; }};
}

auto always(Errc code) {
  return [code](const Request&) { return std::optional<Errc>(code); };
}

// --- attempts ---

TEST(Retry, AsksExactlyTheStatedTimesAndReportsTheFirstError) {
  for (const unsigned attempts : {0U, 1U, 2U, 3U, 10U}) {
    const auto spy = make<Spy>(device_of(1_GiB));
    spy->before_request = always(Errc::out_of_memory);
    const auto retry = make<Retry>(spy, retry_options(attempts));
    for (std::size_t request = 1; request <= 2; ++request) {
      const Expected<Block> block = retry->try_allocate({.bytes = request * 1_MiB});
      ASSERT_FALSE(block);
      EXPECT_EQ(block.error(),
                (Error{.code = Errc::out_of_memory, .stage = "spy", .requested = request * 1_MiB}));
      EXPECT_EQ(spy->requests.size(), request * (1 + attempts));
    }
    EXPECT_EQ(retry->stats().failures, 2U);
    EXPECT_EQ(retry->recoveries().requests, 2U);
    EXPECT_EQ(retry->recoveries().recovered, 0U);
    EXPECT_EQ(retry->recoveries().attempts, 2 * attempts);
  }
}

TEST(Retry, ReportsTheFirstErrorThoughALaterOneDiffers) {
  const auto spy = make<Spy>(device_of(1_GiB));
  int asked = 0;
  spy->before_request = [&](const Request&) {
    return std::optional(++asked == 1 ? Errc::over_limit : Errc::device_failed);
  };
  const auto retry = make<Retry>(spy, retry_options(5));
  EXPECT_EQ(retry->try_allocate({.bytes = 1}).error().code, Errc::over_limit);
  EXPECT_EQ(asked, 2);  // the second failure was of a kind that is not retried
}

TEST(Retry, DoesNotRetryAnotherKindOfFailure) {
  for (const Errc code :
       {Errc::too_large, Errc::bad_alignment, Errc::device_failed, Errc::invalid_block}) {
    const auto spy = make<Spy>(device_of(1_GiB));
    spy->before_request = always(code);
    const auto retry = make<Retry>(spy, retry_options(3));
    bool called = false;
    retry->add_callback([&](std::size_t) { return called = true, 1; });
    EXPECT_EQ(retry->try_allocate({.bytes = 1_MiB}).error().code, code);
    EXPECT_EQ(spy->requests.size(), 1U);
    EXPECT_FALSE(called);
    EXPECT_EQ(retry->recoveries().requests, 0U);
    EXPECT_EQ(retry->stats().failures, 1U);
  }
}

TEST(Retry, StopsAskingAsSoonAsTheRequestIsMet) {
  const auto spy = make<Spy>(device_of(1_GiB));
  int asked = 0;
  spy->before_request = [&](const Request&) {
    return ++asked < 3 ? std::optional(Errc::out_of_memory) : std::nullopt;
  };
  const auto retry = make<Retry>(spy, retry_options(10));
  const Block block = retry->allocate(
      {.bytes = 64_KiB, .alignment = 4_KiB, .stream = {.handle = nullptr, .id = 7}});
  EXPECT_EQ(asked, 3);
  for (const Request& request : spy->requests) {
    EXPECT_EQ(request.bytes, 64_KiB);
    EXPECT_EQ(request.alignment, 4_KiB);
    EXPECT_EQ(request.stream.id, 7U);
  }
  EXPECT_EQ(retry->stats().failures, 0U);
  EXPECT_EQ(retry->recoveries().recovered, 1U);
  EXPECT_EQ(retry->recoveries().attempts, 2U);
  EXPECT_TRUE(retry->deallocate(block));
  testing::expect_all_accounted_for(*retry);
}

TEST(Retry, LeavesWhatItDoesNotConcernAlone) {
  const auto device = device_of(1_GiB);
  const auto retry = make<Retry>(device, retry_options(3));
  EXPECT_TRUE(retry->allocate(0).empty());
  testing::Ledger ledger(*retry);
  {
    const testing::FailingNew failing(1000);
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  }
  EXPECT_EQ(device->allocation_calls(), 1U);
  ledger.expect_in_order();
  ledger.free_all();
  const testing::CaughtReports reports;
  const auto elsewhere = device_of(1_MiB);
  const Block foreign = elsewhere->allocate(512);
  EXPECT_FALSE(retry->deallocate(foreign));
  EXPECT_TRUE(elsewhere->deallocate(foreign));
  EXPECT_EQ(retry->stats().refused_frees, 1U);
  testing::expect_all_accounted_for(*retry);
}

TEST(Retry, RecoversAGrowthToo) {
  const auto device =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 16_MiB, .extensible = true});
  const Ref<Cache> other = unbounded_cache(device);
  const auto retry = make<Retry>(make<Limit>(device, 12_MiB), retry_options(3));
  const Block block = retry->allocate(1_MiB);
  hoard(*other, 5_MiB, 3);
  const Expected<Block> grown = retry->try_grow(block, 8_MiB);
  ASSERT_TRUE(grown);
  EXPECT_GE(retry->recoveries().returned_by(Step::others), 7_MiB);
  EXPECT_EQ(retry->try_grow(*grown, 13_MiB).error().code, Errc::over_limit);
  EXPECT_EQ(retry->recoveries().attempts, 1U + 3U);
  EXPECT_EQ(retry->stats().failures, 0U);  // of requests
  EXPECT_TRUE(retry->deallocate(*grown));
  other->trim();
  testing::expect_nothing_held(*retry);
}

// --- the budgets ---

TEST(Retry, BeginsNoStepOnceTheWindowHasPassed) {
  const auto spy = make<Spy>(device_of(1_GiB));
  spy->before_request = always(Errc::out_of_memory);
  const auto retry = make<Retry>(spy, retry_options(100, 1s));
  int calls = 0;
  retry->add_callback([&](std::size_t) {
    ++calls;
    the_time += 400ms;
    return 1;
  });
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(calls, 3);                       // begun after 0, 400 and 800 ms
  EXPECT_EQ(spy->requests.size(), 1U + 3U);  // what the last one freed was still asked for
  EXPECT_EQ(retry->recoveries().longest, 1200ms);
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(calls, 6);  // every request has a budget of its own
  EXPECT_EQ(retry->recoveries().spent, 2400ms);
}

TEST(Retry, ASlowRecoveryDoesNotResetItsOwnBudget) {
  const auto spy = make<Spy>(device_of(1_GiB));
  spy->before_request = always(Errc::out_of_memory);
  const auto retry = make<Retry>(spy, retry_options(3, 1s));
  int calls = 0;
  retry->add_callback([&](std::size_t) {
    ++calls;
    the_time += 1h;
    return 1_GiB;
  });
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(spy->requests.size(), 2U);
}

TEST(Retry, CallsNoFurtherCallbackOnceTheWindowHasPassed) {
  const auto spy = make<Spy>(device_of(1_GiB));
  spy->before_request = always(Errc::out_of_memory);
  const auto retry = make<Retry>(spy, retry_options(3, 1s));
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    retry->add_callback([&](std::size_t) {
      ++calls;
      the_time += 500ms;
      return 0;
    });
  }
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(calls, 2);
}

TEST(Retry, WithoutAWindowDoesNothing) {
  const auto spy = make<Spy>(device_of(1_GiB));
  spy->before_request = always(Errc::out_of_memory);
  const auto retry = make<Retry>(spy, retry_options(3, 0s));
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(spy->requests.size(), 1U);
}

TEST(Retry, GivesEveryThreadItsOwnAttempts) {
  const auto spy = make<Spy>(device_of(1_GiB));
  spy->before_request = always(Errc::out_of_memory);
  const auto retry = make<Retry>(spy, retry_options(3));
  std::size_t inside = 0;
  bool started = false;
  retry->add_callback([&](std::size_t) {
    if (!started) {  // in the midst of one thread's recovery, another one's request fails
      started = true;
      std::thread([&] {
        const std::size_t before = spy->requests.size();
        EXPECT_FALSE(retry->try_allocate({.bytes = 2_MiB}));
        inside = spy->requests.size() - before;
      }).join();
    }
    return 0;
  });
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(inside, 1U + 3U);
  EXPECT_EQ(spy->requests.size(), 2 * (1U + 3U));
}

// --- the steps ---

struct Neighbours : ::testing::Test {
  const Ref<SimulatedDevice> device = device_of(16_MiB);
  const Ref<Cache> own = unbounded_cache(device);
  const Ref<Cache> other = unbounded_cache(device);
  const Ref<Retry> retry = make<Retry>(own, retry_options(3));
  std::vector<std::size_t> told;
  void note_callback() {
    retry->add_callback([this](std::size_t missing) {
      told.push_back(missing);
      return 0;
    });
  }
};
using RetrySteps = Neighbours;

TEST_F(RetrySteps, TakeFromOtherPoolsNoMoreThanIsMissing) {
  note_callback();
  hoard(*other, 1_MiB, 14);
  const Block block = retry->allocate(5_MiB);
  EXPECT_EQ(retry->recoveries().attempts, 1U);
  EXPECT_EQ(retry->recoveries().returned_by(Step::own), 0U);
  EXPECT_GE(retry->recoveries().returned_by(Step::others), 3_MiB);
  EXPECT_LE(retry->recoveries().returned_by(Step::others), 5_MiB);
  EXPECT_GE(other->stats().cached.current, 9_MiB);
  EXPECT_TRUE(told.empty());
  EXPECT_TRUE(retry->deallocate(block));
  other->trim();
  testing::expect_all_accounted_for(*retry);
}

TEST_F(RetrySteps, TakeOnesOwnIdleMemoryFirst) {
  // A cache that would give back by itself is not in between here.
  const auto spy = make<Spy>(own);
  const auto over = make<Retry>(spy, retry_options(3));
  hoard(*own, 1_MiB, 8);
  hoard(*other, 1_MiB, 8);
  int asked = 0;
  spy->before_request = [&](const Request&) {
    return ++asked == 1 ? std::optional(Errc::out_of_memory) : std::nullopt;
  };
  over->deallocate(over->allocate(2_MiB));
  EXPECT_GE(over->recoveries().returned_by(Step::own), 2_MiB);
  EXPECT_EQ(over->recoveries().returned_by(Step::others), 0U);
  EXPECT_EQ(other->stats().cached.current, 8_MiB);
}

TEST_F(RetrySteps, TellTheCallbacksHowMuchIsStillMissing) {
  hoard(*other, 1_MiB, 2);
  std::vector<Block> live;
  for (int i = 0; i < 13; ++i)
    live.push_back(retry->allocate(1_MiB));
  retry->add_callback([&](std::size_t missing) -> std::size_t {
    told.push_back(missing);
    if (live.empty()) return 0;
    retry->deallocate(live.back());
    live.pop_back();
    return 1_MiB;
  });
  live.push_back(retry->allocate(5_MiB));  // 1 MiB is free, 2 MiB lie in the other pool
  ASSERT_GE(told.size(), 2U);
  EXPECT_EQ(told[0], 2_MiB);
  EXPECT_EQ(other->stats().cached.current, 0U);
  EXPECT_EQ(retry->stats().failures, 0U);
  for (const Block& block : live)
    retry->deallocate(block);
  testing::expect_all_accounted_for(*retry);
}

TEST_F(RetrySteps, StopAmongTheCallbacksOnceEnoughIsFree) {
  const Block large = device->allocate(16_MiB);
  bool second_called = false;
  retry->add_callback([&](std::size_t missing) {
    EXPECT_EQ(missing, 1_MiB);
    device->deallocate(large);
    return 16_MiB;
  });
  retry->add_callback([&](std::size_t) { return second_called = true, 0; });
  retry->deallocate(retry->allocate(1_MiB));
  EXPECT_FALSE(second_called);
  EXPECT_EQ(retry->recoveries().attempts, 1U);
}

TEST_F(RetrySteps, LookAgainWhereACallbackFreedToAnotherPool) {
  for (const unsigned attempts : {1U, 2U, 3U}) {
    const auto stack = make<Retry>(own, retry_options(attempts));
    const Block elsewhere = other->allocate(16_MiB);
    stack->add_callback([&](std::size_t) {
      other->deallocate(elsewhere);
      return 0;  // as far as it knows
    });
    stack->deallocate(stack->allocate(8_MiB));
    EXPECT_EQ(stack->stats().failures, 0U);
    stack->trim();
  }
}

TEST_F(RetrySteps, AreNotTakenWhereTheUpstreamHadRoomAndFailedAllTheSame) {
  note_callback();
  hoard(*other, 1_MiB, 4);
  device->fail_next(1);
  retry->deallocate(retry->allocate(1_MiB));
  EXPECT_EQ(other->stats().cached.current, 4_MiB);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(retry->recoveries().attempts, 1U);
}

TEST_F(RetrySteps, DoNotRobPoolsThatABoundDoesNotConcern) {
  const auto bounded = make<Retry>(make<Limit>(own, 1_MiB), retry_options(3));
  hoard(*own, 1_MiB, 4);
  hoard(*other, 1_MiB, 4);
  EXPECT_EQ(bounded->try_allocate({.bytes = 2_MiB}).error().code, Errc::over_limit);
  EXPECT_EQ(own->stats().cached.current, 4_MiB);
  EXPECT_EQ(other->stats().cached.current, 4_MiB);
}

TEST_F(RetrySteps, TrimThePoolsThatShareTheBound) {
  const auto budget = make<Limit>(device, 4_MiB);
  const Ref<Cache> hoarder = unbounded_cache(budget);
  const auto stack = make<Retry>(unbounded_cache(budget), retry_options(3));
  hoard(*other, 1_MiB, 4);
  hoard(*hoarder, 1_MiB, 4);
  stack->deallocate(stack->allocate(2_MiB));
  EXPECT_EQ(other->stats().cached.current, 4_MiB);
  EXPECT_LE(hoarder->stats().cached.current, 2_MiB);
}

TEST_F(RetrySteps, GoFurtherWithEveryAttempt) {
  // What comes back is never in one piece here, before the callback was called.
  const auto spy = make<Spy>(own);
  bool called = false;
  const auto refuse_until = [&](std::function<bool()> met) {
    spy->before_request = [met = std::move(met)](const Request&) {
      return met() ? std::nullopt : std::optional(Errc::out_of_memory);
    };
  };
  const auto is_called = [&](std::size_t) { return called = true, 0; };
  const auto idle = [](const Ref<Cache>& pool) { return pool->stats().cached.current; };
  const auto fill = [&] {
    hoard(*own, 1_MiB, 8);
    hoard(*other, 1_MiB, 8);
  };
  fill();
  const auto three = make<Retry>(spy, retry_options(3));
  three->add_callback(is_called);
  refuse_until([&] { return idle(own) == 0; });  // the second attempt takes all of a step
  three->deallocate(three->allocate(2_MiB));
  EXPECT_EQ(three->recoveries().attempts, 2U);
  EXPECT_EQ(idle(other), 8_MiB);  // since that was enough
  EXPECT_FALSE(called);
  fill();
  refuse_until([&] { return called; });  // the last one takes every step
  three->deallocate(three->allocate(2_MiB));
  EXPECT_EQ(three->recoveries().attempts, 2U + 3U);
  EXPECT_EQ(idle(other), 0U);
}

TEST_F(RetrySteps, TellOfTheWholeRequestWhereNothingSeemsMissing) {
  const auto broken = make<SimulatedDevice>(SimulatedDevice::Options{.fail_probability = 1});
  const auto stack = make<Retry>(broken, retry_options(3));
  stack->add_callback([this](std::size_t missing) { return told.push_back(missing), 0; });
  EXPECT_FALSE(stack->try_allocate({.bytes = 3_MiB}));
  EXPECT_EQ(told, (std::vector<std::size_t>{3_MiB}));  // in the last attempt
}

TEST_F(RetrySteps, EndWithTheCallbacksWhereMemoryIsTrulyInUse) {
  note_callback();
  const Block all = retry->allocate(16_MiB);
  EXPECT_FALSE(retry->try_allocate({.bytes = 3_MiB}));
  EXPECT_EQ(told, (std::vector<std::size_t>{3_MiB, 3_MiB, 3_MiB}));  // one in each attempt
  EXPECT_TRUE(retry->deallocate(all));
  testing::expect_all_accounted_for(*retry);
}

TEST_F(RetrySteps, LeaveEveryPoolAsGoodAsItWas) {
  const Block all = retry->allocate(16_MiB);
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_TRUE(retry->deallocate(all));
  retry->trim();
  for (int turn = 0; turn < 3; ++turn) {
    hoard(*other, 1_MiB, 12);
    retry->deallocate(retry->allocate(10_MiB));  // has the other pool trimmed
    retry->trim();
  }
  EXPECT_EQ(retry->stats().failures, 1U);
  const std::uint64_t hits = other->stats().hits;
  hoard(*other, 1_MiB, 4);
  hoard(*other, 1_MiB, 4);
  EXPECT_GE(other->stats().hits, hits + 4);  // it goes on caching
  EXPECT_EQ(other->validate(), "");
}

// --- callbacks ---

struct RetryCallbacks : Neighbours {
  Block all = retry->allocate(16_MiB);
};

TEST_F(RetryCallbacks, MayAllocateAndFreeInTheSameStack) {
  int nested_failures = 0;
  retry->add_callback([&](std::size_t) -> std::size_t {
    const Expected<Block> nested = retry->try_allocate({.bytes = 1_MiB});
    if (nested) {
      retry->deallocate(*nested);
    } else {
      ++nested_failures;  // and it was not recovered in its turn, without end
    }
    if (all.empty()) return 0;
    retry->deallocate(std::exchange(all, {}));
    retry->deallocate(retry->allocate(2_MiB));
    return 16_MiB;
  });
  retry->deallocate(retry->allocate(4_MiB));
  EXPECT_EQ(nested_failures, 1);
  EXPECT_EQ(retry->recoveries().requests, 1U);
  EXPECT_EQ(retry->stats().failures, 1U);  // the nested one
  testing::expect_all_accounted_for(*retry);
}

TEST_F(RetryCallbacks, MayThrow) {
  const testing::CaughtReports reports;
  retry->add_callback([](std::size_t) -> std::size_t { throw std::runtime_error("no"); });
  retry->add_callback([&](std::size_t) -> std::size_t {
    retry->deallocate(std::exchange(all, {}));
    return 16_MiB;
  });
  retry->deallocate(retry->allocate(4_MiB));
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(reports.all()[0], "retry: a callback threw when 4194304 bytes were missing");
  testing::expect_all_accounted_for(*retry);
}

TEST_F(RetryCallbacks, MayRemoveThemselvesAndOthersAndAddSome) {
  std::vector<int> called;
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  auto alive = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = alive;
  first = retry->add_callback([&, alive](std::size_t) {
    called.push_back(*alive);
    EXPECT_TRUE(retry->remove_callback(first));
    EXPECT_FALSE(retry->remove_callback(first));
    EXPECT_TRUE(retry->remove_callback(second));
    retry->add_callback([&](std::size_t) { return called.push_back(3), 0; });
    EXPECT_EQ(*alive, 1);  // what it holds is there until it ends
    return 0;
  });
  second = retry->add_callback([&](std::size_t) { return called.push_back(2), 0; });
  alive.reset();
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(called, (std::vector<int>{1, 3, 3}));
  EXPECT_TRUE(watch.expired());
  retry->deallocate(all);
}

TEST_F(RetryCallbacks, MayAddThemselvesAgain) {
  unsigned calls = 0;
  std::uint64_t token = 0;
  Retry::Callback once;
  once = [&](std::size_t) -> std::size_t {
    const Retry::Callback again = once;
    if (++calls > 100) return 0;  // without end, if those that are added were called at once
    EXPECT_TRUE(retry->remove_callback(token));
    token = retry->add_callback(again);
    return 0;
  };
  token = retry->add_callback(once);
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(calls, 3U);  // once an attempt
  retry->deallocate(all);
}

TEST_F(RetryCallbacks, AreGoneOnceRemoved) {
  bool called = false;
  const std::uint64_t token = retry->add_callback([&](std::size_t) { return called = true, 0; });
  EXPECT_NE(token, 0U);
  EXPECT_FALSE(retry->remove_callback(token + 1));
  EXPECT_TRUE(retry->remove_callback(token));
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_FALSE(called);
  retry->deallocate(all);
}

TEST_F(RetryCallbacks, MayClaimAnything) {
  retry->add_callback([](std::size_t) { return unbounded; });
  retry->add_callback([](std::size_t) { return unbounded; });
  EXPECT_FALSE(retry->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(retry->recoveries().returned_by(Step::callbacks), unbounded);
  retry->deallocate(all);
}

TEST(Retry, ACallbackMayCloseTheStack) {
  const testing::CaughtReports reports;
  const auto device = device_of(16_MiB);
  auto stack = make<Retry>(unbounded_cache(device), retry_options(3));
  Retry* const closed = stack.get();
  const Block all = stack->allocate(16_MiB);
  stack->add_callback([&](std::size_t) -> std::size_t {
    stack = {};
    return 0;
  });
  EXPECT_FALSE(closed->try_allocate({.bytes = 1_MiB}));
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_TRUE(closed->deallocate(all));  // the end of it
  EXPECT_EQ(device->used(), 0U);
}

TEST(Retry, ACallbackMayCloseAStackWithMoreStagesWhileABlockIsLive) {
  const testing::CaughtReports reports;
  const auto device = device_of(16_MiB);
  Stack stack = open("limit(1GiB) > cache > retry > mine", {{"mine", device}});
  Resource* const closed = &*stack;
  const Block all = stack->allocate(16_MiB);
  find_stage<Retry>(*stack)->add_callback([&](std::size_t) -> std::size_t {
    stack.close();
    return 0;
  });
  EXPECT_THROW((void)closed->allocate(1_MiB), OutOfMemory);
  EXPECT_TRUE(closed->deallocate(all));
  EXPECT_EQ(device->used(), 0U);
}

// --- lifetimes: it knows nothing of its blocks, and yet must stay for the last of them ---

TEST(Retry, StaysForItsLastBlock) {
  const testing::CaughtReports reports;
  const auto device = device_of(16_MiB);
  Buffer first;
  Buffer second;
  {
    const auto stack = open("retry > retry > cache > mine", {{"mine", device}});
    first = stack.buffer(1_MiB);
    second = stack.buffer(1_MiB);
  }
  EXPECT_EQ(reports.all().size(), 1U);
  first.reset();
  EXPECT_EQ(device->used(), 1_MiB);
  second.reset();
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Retry, EndsAtOnceWhereNothingIsOut) {
  const auto device = device_of(16_MiB);
  auto alive = std::make_shared<int>();
  const std::weak_ptr<int> watch = alive;
  {
    const auto stack = make<Retry>(device, retry_options(3));
    stack->add_callback([alive](std::size_t) { return 0; });
    alive.reset();
  }
  EXPECT_TRUE(watch.expired());
}

TEST(Retry, MayBeClosedWhileAnotherStageGoesOnUsingItsUpstream) {
  const testing::CaughtReports reports;
  const auto device = device_of(16_MiB);
  const Ref<Cache> cache = unbounded_cache(device);
  const Block other = cache->allocate(1_MiB);
  Buffer mine;
  {
    const auto stack = make<Retry>(cache, retry_options(3));
    mine = Buffer(*stack, 2_MiB);
  }
  EXPECT_TRUE(cache->deallocate(other));
  mine.reset();
  testing::expect_all_accounted_for(*cache);
}

// --- from text ---

TEST(Retry, IsAStageOfTheLanguage) {
  const auto device = device_of(16_MiB);
  const Stack stack =
      open("limit(1GiB) > retry(attempts=2, window=10s) > cache > mine", {{"mine", device}});
  auto* const retry = find_stage<Retry>(*stack);
  ASSERT_NE(retry, nullptr);
  EXPECT_NE(find_stage<Cache>(*stack), nullptr);
  EXPECT_EQ(find_stage<Spy>(*stack), nullptr);
  const Buffer all = stack.buffer(16_MiB);
  EXPECT_THROW((void)stack->allocate(1_MiB), OutOfMemory);
  EXPECT_EQ(retry->recoveries().attempts, 2U);
  EXPECT_EQ(stack->stats().failures, 1U);
}

// --- on devices that fail ---

TEST(Retry, ADeviceThatFailsEveryThirdCallMeetsEveryRequestThatFits) {
  std::uint64_t recovered = 0;
  for (const std::string pool :
       {"", "coalesce >", "cache >", "cache(idle_ratio=0) >", "cache(buckets=fit) >"}) {
    const Stack stack = open("retry > " + pool + " simulated(capacity=64MiB, fail_every=3)");
    const std::uint64_t seed = testing::seed_or(1);
    SCOPED_TRACE(pool + " " + testing::replay_hint(seed));
    testing::Random random(seed);
    testing::Ledger ledger(*stack);
    for (int step = 0; step < 3000; ++step) {
      if (ledger.size() > 0 &&
          (random.chance(45) || stack->stats().live_granted.current > 32_MiB)) {
        ledger.free(random.below(ledger.size()));
      } else {
        ASSERT_TRUE(ledger.allocate({.bytes = random.size(20)})) << step;
      }
      if (step % 100 == 0) ledger.expect_in_order();
    }
    EXPECT_EQ(stack->stats().failures, 0U);
    recovered += find_stage<Retry>(*stack)->recoveries().recovered;
    ledger.free_all();
    testing::expect_all_accounted_for(*stack);
  }
  EXPECT_GT(recovered, 1000U);
}

TEST(Retry, ADeviceFivePercentTooSmallWhoseOtherPoolHoardsMeetsEveryRequest) {
  constexpr std::size_t block = 1_MiB;
  constexpr std::size_t working_set = 100;
  const auto device = device_of(working_set * block * 95 / 100);
  const Ref<Cache> hoarder = unbounded_cache(device);
  const auto retry = make<Retry>(unbounded_cache(device), retry_options(3));
  for (int turn = 0; turn < 3; ++turn) {
    hoard(*hoarder, block, 30);
    testing::Ledger ledger(*retry);
    for (std::size_t i = 0; i < 90; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = block}));
    ledger.expect_in_order();
    ledger.free_all();
    retry->trim();
  }
  EXPECT_EQ(retry->stats().failures, 0U);
  EXPECT_GT(retry->recoveries().recovered, 0U);
  EXPECT_EQ(retry->recoveries().recovered, retry->recoveries().requests);
}

TEST(Retry, EveryDeviceCallMayFailOnce) {
  std::uint64_t calls = unbounded;
  for (std::uint64_t failing = 1; failing <= calls; ++failing) {
    const auto device = device_of(16_MiB);
    const Ref<Cache> other = unbounded_cache(device);
    hoard(*other, 1_MiB, 12);
    const auto stack = make<Retry>(unbounded_cache(device), retry_options(3));
    device->fail_next(failing);
    const std::uint64_t before = device->allocation_calls();
    testing::Ledger ledger(*stack);
    for (const std::size_t bytes : {1_MiB, 4_MiB, 2_MiB, 8_MiB})
      ASSERT_TRUE(ledger.allocate({.bytes = bytes})) << failing;
    ledger.expect_in_order();
    ledger.free_all();
    ASSERT_TRUE(ledger.allocate({.bytes = 15_MiB})) << failing;
    ledger.free_all();
    calls = device->allocation_calls() - before;
    EXPECT_EQ(stack->stats().failures, 0U);
    other->trim();
    testing::expect_all_accounted_for(*stack);
  }
  EXPECT_GT(calls, 5U);
}

TEST(Retry, TheRecoveryItselfNeedsNoHeap) {
  const auto device = device_of(16_MiB);
  const Ref<Cache> other = unbounded_cache(device);
  const auto retry = make<Retry>(unbounded_cache(device), retry_options(3));
  retry->deallocate(retry->allocate(1_MiB));
  hoard(*other, 1_MiB, 15);
  retry->add_callback([](std::size_t) { return 0; });
  const std::ptrdiff_t blocks = testing::heap_blocks();
  const Expected<Block> block = retry->try_allocate({.bytes = 8_MiB});
  ASSERT_TRUE(block);
  EXPECT_FALSE(retry->try_allocate({.bytes = 12_MiB}));
  EXPECT_EQ(testing::heap_blocks(), blocks);
  retry->deallocate(*block);
}

}  // namespace
}  // namespace cistern
