// The tiers, as they are written: what they stand for, and that they behave alike.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/deferred.hpp"
#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/file.hpp"
#include "cistern/device/host.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

std::string expanded(std::string_view text) {
  const auto stack = expand(text);
  return stack ? *stack : stack.error().what();
}

TEST(Tier, StandsAroundWhatIsToItsRight) {
  EXPECT_EQ(expanded("tier(A) > host"), "deferred(coalesce > host, otherwise=host)");
  EXPECT_EQ(expanded("tier(tier=B) > limit(1GiB)>simulated"),
            "deferred(retry(attempts=3, window=1s) > coalesce > limit(1GiB)>simulated, "
            "otherwise=limit(1GiB)>simulated)");
  EXPECT_EQ(expanded("tier(C) > host"), "deferred(host(memory=file), otherwise=host)");
  EXPECT_EQ(expanded("tier(C) > limit(1GiB) > host()"),
            "deferred(limit(1GiB) > host(memory=file), otherwise=limit(1GiB) > host())");
  EXPECT_EQ(expanded("tier(C) > host(1MiB, zero=true)"),
            "deferred(host(1MiB, zero=true, memory=file), otherwise=host(1MiB, zero=true))");
  EXPECT_EQ(expanded("tier(C) > cuda(device=1)"),
            "deferred(cuda(device=1, memory=managed), otherwise=cuda(device=1))");
  EXPECT_EQ(expanded("limit(2GiB) > tier(bare) > host"), "limit(2GiB) > host");
  EXPECT_EQ(expanded(" trace(\"f\") > tier(A) > mlx > mine "),
            " trace(\"f\") > deferred(coalesce > cache(buckets=fit, slack=2, slack_bytes=8KiB, "
            "max_bytes=32MiB, idle_ratio=none) > mine, otherwise=cache(buckets=fit, slack=2, "
            "slack_bytes=8KiB, max_bytes=32MiB, idle_ratio=none) > mine) ");
  EXPECT_EQ(expanded("fallback(tier(bare) > simulated, otherwise=tier(C) > tier(bare) > host)"),
            "fallback(simulated, otherwise=deferred(host(memory=file), otherwise=host))");
}

TEST(Tier, HasStagesToFindOnceItsDeviceIsAskedFor) {
  const Stack stack = open("limit(1GiB) > tier(B) > simulated");
  EXPECT_EQ(find_stage<Retry>(*stack), nullptr);
  EXPECT_NE(find_stage<Limit>(*stack), nullptr);
  EXPECT_EQ(stack->device().limits().kind, std::string("simulated"));
  EXPECT_NE(find_stage<Retry>(*stack), nullptr);
}

TEST(Tier, WhatItStandsForIsItsOwnRoundTrip) {
  for (const char* text : {"tier(A) > tier(B) > host", "tier(C) > tier(A) > host(1MiB)",
                           "limit(1GiB) > fallback(tier(A) > host, tier(bare) > mlx > host)"}) {
    EXPECT_EQ(expanded(expanded(text)), expanded(text));
  }
}

TEST(Tier, ProblemsPointAtWhatWasWritten) {
  EXPECT_EQ(expanded("tier(D) > host"),
            "tier: 'D' is not one of A, B, C, bare\n"
            "  tier(D) > host\n"
            "       ^");
  EXPECT_EQ(expanded("tier > host"),
            "tier needs tier (one of A, B, C, bare): A joins free neighbours; B also recovers when "
            "memory runs out; C has more memory than there is; bare is the stack below alone\n"
            "  tier > host\n"
            "  ^~~~");
  EXPECT_EQ(
      expanded("cache > tier(C) > simulated(1GiB)"),
      "tier(C) stands above a device that can give more memory than there is (host, cuda), which "
      "'simulated' cannot\n"
      "  cache > tier(C) > simulated(1GiB)\n"
      "                    ^~~~~~~~~");
  const auto position = [](const char* text) { return check(text).error().position(); };
  EXPECT_EQ(position("limit(1GiB) > tier(A)"), 14U);
  EXPECT_EQ(position("tier(B) > limit > host"), 10U);
  EXPECT_EQ(position("tier(bare) > cache(max_byte=1) > host"), 19U);
  EXPECT_EQ(position("tier(C) > host(memory=malloc)"), 10U);
}

TEST(Tier, NestedWithoutEndIsRefusedAndNotWrittenOut) {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "tier(A) > ";
  const auto stack = expand(text + "host");
  ASSERT_FALSE(stack);
  EXPECT_EQ(stack.error().message(), "the recipes of this text stand for more than 65536 bytes");
}

TEST(Tier, ThatMakesAStackTooDeepOrTooLongIsRefusedWhereItIsWritten) {
  std::string deep = "tier(B) > host";  // opens two
  for (int i = 0; i < 30; ++i)
    deep = "fallback(host, " + deep + ")";
  EXPECT_TRUE(expand(deep));
  deep = "fallback(host, " + deep + ")";
  ASSERT_FALSE(expand(deep));
  EXPECT_EQ(expand(deep).error().position(), 15U * 31);

  std::string text = "tier(A) > ";
  for (int i = 0; i < 62; ++i)
    text += "cache > ";
  EXPECT_TRUE(expand(text + "host"));
  const auto long_stack = expand("tier(B) > " + text.substr(10) + "host");
  ASSERT_FALSE(long_stack);
  EXPECT_EQ(long_stack.error().message(), "a stack has at most 64 stages");
}

class EveryTier : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, EveryTier,
                         ::testing::Values("tier(A) > host", "tier(B) > host", "tier(C) > host",
                                           "tier(bare) > host", "tier(A) > simulated",
                                           "tier(B) > simulated", "tier(bare) > simulated",
                                           "limit(1GiB) > tier(B) > limit(90%) > host"));

TEST_P(EveryTier, ServesAccountsAndCanBeEmptied) {
  const testing::CaughtReports reports;
  const Stack stack = open(GetParam());
  EXPECT_EQ(stack->stats(), Stats{});
  EXPECT_EQ(stack->trim(), 0U);
  testing::Ledger ledger(*stack);
  for (int turn = 0; turn < 3; ++turn) {
    for (const std::size_t bytes : {1_KiB, 5_MiB, 64_KiB, std::size_t{1}, 300_KiB})
      ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
    ledger.expect_in_order();
    ledger.free_all();
  }
  EXPECT_EQ(stack->stats().allocations, 15U);
  EXPECT_EQ(stack->stats().hits + stack->stats().misses, 15U);
  testing::expect_all_accounted_for(*stack);
  EXPECT_TRUE(reports.all().empty());

  const Stack meant = open(expand(GetParam()).value());
  EXPECT_EQ(meant->stats(), Stats{});
}

TEST(Tier, IsSetUpAtTheFirstRequest) {
  const Stack stack = open("limit(1GiB) > tier(C) > host");
  const auto& limit = dynamic_cast<const Limit&>(*stack);
  const auto& tier = dynamic_cast<const Deferred&>(limit.upstream());
  EXPECT_EQ(tier.stack(), nullptr);
  const Buffer buffer = stack.buffer(1_MiB);
  EXPECT_NE(dynamic_cast<const FileDevice*>(tier.stack()), nullptr);
}

TEST(Tier, FallsBackToTheBareDeviceWithOneWarning) {
  const testing::CaughtReports reports;
  const Stack stack = open("deferred(host(memory=file, path=\"/no/such/folder\"), otherwise=host)");
  const Buffer buffer = stack.buffer(1_MiB);
  EXPECT_NE(dynamic_cast<const HostDevice*>(&stack->device()), nullptr);
  const Buffer another = stack.buffer(1_MiB);
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_NE(reports.all()[0].find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace cistern
