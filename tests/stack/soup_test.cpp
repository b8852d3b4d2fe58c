// Texts made at random: whatever they are, the answer is a chain of stages or a place in the text.
#include <string>

#include <gtest/gtest.h>

#include "cistern/stack/stack.hpp"
#include "stack/parse.hpp"
#include "stack/read.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

/// True if `text` is right. Makes nothing.
bool is_right(const std::string& text) {
  const auto place = [&](const language::Problem& problem) {
    EXPECT_LE(problem.span.position, text.size()) << problem.message;
    EXPECT_LE(problem.span.length, text.size() - problem.span.position) << problem.message;
    EXPECT_FALSE(problem.message.empty());
    const StackError error(text, problem.span.position, problem.span.length, problem.message);
    EXPECT_LT(std::string_view(error.what()).size(), 1000U);
    return false;
  };
  const auto right = language::read(text, {});
  return right ? true : place(right.error());
}

TEST(Soup, OfTokens) {
  static constexpr const char* tokens[] = {
      "cache", "limit", "fallback", "first", "deferred", "trace",    "host",       "simulated",
      "netcl", "mlx",   "cach",     ">",     ">",        ">",        "(",          ")",
      "(",     ")",     "[",        "]",     ",",        "=",        "buckets",    "max_bytes",
      "slack", "fit",   "pow2",     "table", "none",     "evict",    "4KiB",       "1.5GiB",
      "99EiB", "90%",   "120%",     "-1",    "0",        "3",        "10us",       "\"x\"",
      "\"",    "\\",    " ",        "\n",    "\t",       "\xC3\xA9", "per_bucket="};
  const std::uint64_t seed = testing::seed_or(1);
  testing::Random random(seed);
  for (int i = 0; i < 50'000; ++i) {
    std::string text;
    for (std::uint64_t left = random.below(12); left > 0; --left)
      text += tokens[random.below(std::size(tokens))];
    SCOPED_TRACE(testing::replay_hint(seed) + ": " + text);
    is_right(text);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Soup, OfBytes) {
  const std::uint64_t seed = testing::seed_or(2);
  testing::Random random(seed);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (std::uint64_t left = random.below(20); left > 0; --left)
      text += static_cast<char>(random.below(256));
    SCOPED_TRACE(testing::replay_hint(seed));
    is_right(text);
    if (::testing::Test::HasFailure()) return;
  }
}

/// A right text with a byte or a stretch of it changed, left out or doubled.
TEST(Soup, OfRightTextsWithOneMistake) {
  static constexpr const char* texts[] = {
      "limit(2GiB) > cache(buckets=table, max_bytes=4GiB, when_full=reject) > host",
      R"(limit(90%) > mlx > trace("a \"b\" \\") > simulated(16GiB, free_latency=10us))",
      "cache(buckets=[4KiB, 64KiB], idle_ratio=none) > host(256KiB, never, zero=true)",
      "limit(1GiB) > fallback(limit(90%) > mlx > host, otherwise=first(cuda, netcl > simulated))"};
  const std::uint64_t seed = testing::seed_or(3);
  testing::Random random(seed);
  unsigned right = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = texts[random.below(std::size(texts))];
    const std::size_t at = random.below(text.size());
    const std::size_t length = random.below(6);
    switch (random.below(3)) {
      case 0:
        text[at] = static_cast<char>(random.below(128));
        break;
      case 1:
        text.erase(at, length);
        break;
      default:
        text.insert(at, text.substr(random.below(text.size()), length));
        break;
    }
    SCOPED_TRACE(testing::replay_hint(seed) + ": " + text);
    right += is_right(text) ? 1U : 0U;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(right, 0U);
  EXPECT_LT(right, 20'000U);
}

TEST(Soup, OfLongTexts) {
  for (const char* piece :
       {"(", "[", "a(", "a([", "cache>", "a,", "\"", "x", "\\", "=", "1", "a=", " ", "a(a>"}) {
    std::string text = "cache(";
    while (text.size() < language::longest_text + 10)
      text += piece;
    EXPECT_FALSE(is_right(text));
    text.resize(language::longest_text);
    EXPECT_FALSE(is_right(text));
  }
}

}  // namespace
}  // namespace cistern
