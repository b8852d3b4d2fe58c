// Stages that take back at once what they have handed out stand outermost, and what they are told
// in a text.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/adaptor/recorder.hpp"
#include "cistern/pool/arena.hpp"
#include "cistern/stack/stack.hpp"
#include "support/errors.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using ::testing::HasSubstr;
using testing::stack_error;

TEST(Outermost, NothingButATraceStandsAboveAnArena) {
  EXPECT_EQ(
      stack_error("limit(1GiB) > arena > host"),
      "'arena' takes back at once what it has handed out, which 'limit' would not know of: it "
      "is the outermost stage, or stands under 'trace'\n"
      "  limit(1GiB) > arena > host\n"
      "                ^~~~~");
  for (const std::string above :
       {"cache", "coalesce", "retry(attempts=2)", "arena", "trace(\"/dev/null\") > cache"}) {
    const std::string name = above.substr(above.rfind('>') + 1);
    EXPECT_THAT(stack_error(above + " > arena(chunk=1MiB) > host"),
                HasSubstr("would not know of: it is the outermost stage, or stands under 'trace'"))
        << name;
  }
}

TEST(Outermost, NoArenaStandsInAStackWithinAStack) {
  for (const char* text : {"fallback(arena > host, host)", "fallback(host, arena > host)",
                           "first(arena > host)", "deferred(cache > host, arena > host)",
                           "fallback(trace(\"/dev/null\") > arena > host, host)",
                           "cache > fallback(arena > host, host)"}) {
    EXPECT_THAT(stack_error(text),
                HasSubstr("'arena' takes back at once what it has handed out, which "
                          "the stage around it would not know of"))
        << text;
  }
}

TEST(Outermost, UnderATraceAndAboveAllElseItOpens) {
  for (const char* text : {"arena > host", "trace(\"/dev/null\") > arena > cache > host",
                           "arena > limit(1GiB) > host", "arena > fallback(cache > host, host)",
                           "trace(\"/dev/null\") > trace(\"/dev/null\") > arena > host"}) {
    const Stack stack = open(text);
    ASSERT_NE(find_stage<Arena>(*stack), nullptr) << text;
    testing::Ledger ledger(*stack);
    for (int cycle = 0; cycle < 3; ++cycle) {
      ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
      ASSERT_TRUE(ledger.allocate({.bytes = 100'000}));
      ledger.expect_in_order();
      ledger.reset();
      ledger.expect_in_order();
    }
    testing::expect_nothing_held(*stack);
  }
}

TEST(ArenaArguments, AreTheOptionsOfAnArena) {
  const testing::CaughtReports reports;
  const Stack stack =
      open("arena(chunk=1MiB, warn_cycles=2, warn_bytes=50%) > simulated(capacity=16MiB)");
  const auto take = [&](std::size_t bytes) { static_cast<void>(stack->allocate(bytes)); };
  take(1000);
  EXPECT_EQ(stack->stats().reserved.current, 1_MiB);
  stack->cycle();
  EXPECT_TRUE(reports.all().empty());
  take(1000);
  stack->cycle();
  EXPECT_EQ(reports.all().size(), 1U);  // of growth
  stack->reset();
  take(8_MiB);
  EXPECT_EQ(reports.all().size(), 1U);
  take(1_MiB + 1);
  EXPECT_EQ(reports.all().size(), 2U);  // of bytes
  stack->reset();
}

TEST(ArenaArguments, OfOtherKindsAreRefused) {
  EXPECT_THAT(stack_error("arena(chunk=none) > host"), HasSubstr("chunk"));
  EXPECT_THAT(stack_error("arena(chunk=10%) > host"), HasSubstr("chunk"));
  EXPECT_THAT(stack_error("arena(warn_cycles=1KiB) > host"), HasSubstr("warn_cycles"));
  EXPECT_THAT(stack_error("arena(size=1KiB) > host"), HasSubstr("chunk, warn_cycles, warn_bytes"));
  EXPECT_EQ(stack_error("arena(1KiB, 3, none) > host"), "opened");
}

}  // namespace
}  // namespace cistern
