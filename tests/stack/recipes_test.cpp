#include "stack/recipes.hpp"

#include <string>

#include <gtest/gtest.h>

#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/environment.hpp"

namespace cistern {
namespace {

using namespace literals;

constexpr const char* netcl_variable = "NETCL_MAX_CACHED_GB";

std::string netcl_with(const std::string& max_bytes) {
  return "cache(buckets=table, max_bytes=" + max_bytes +
         ", per_bucket=16, when_full=reject, idle_ratio=none)";
}

TEST(Expand, ReplacesRecipesAndNothingElse) {
  const testing::Environment environment(netcl_variable, nullptr);
  EXPECT_EQ(expand("netcl > host").value(), netcl_with("4GiB") + " > host");
  EXPECT_EQ(expand("netcl_unbounded>host").value(), "cache(buckets=pow2, idle_ratio=none)>host");
  EXPECT_EQ(expand("mlx").value(),
            "cache(buckets=fit, slack=2, slack_bytes=8KiB, max_bytes=32MiB, idle_ratio=none)");
  EXPECT_EQ(expand(" limit( 2GiB ) >\tmlx ( )>  \"x\"").error().message(),
            "expected a stage, found '\"'");
  EXPECT_EQ(expand(" limit( 2GiB ) >\tmlx ( )>  mine ").value(),
            " limit( 2GiB ) >\tcache(buckets=fit, slack=2, slack_bytes=8KiB, max_bytes=32MiB, "
            "idle_ratio=none)>  mine ");
  EXPECT_EQ(expand("trace(\"netcl > mlx\") > cache(netcl) > x").value(),
            "trace(\"netcl > mlx\") > cache(netcl) > x");
  EXPECT_EQ(expand("fallback(netcl_unbounded > a, [mlx, b]) > c").value(),
            "fallback(cache(buckets=pow2, idle_ratio=none) > a, [mlx, b]) > c");
}

TEST(Expand, IsItsOwnRoundTrip) {
  for (const char* text : {"netcl > host", "netcl_unbounded > mlx > host",
                           "limit(1GiB) > mlx > simulated", "cache > host", "mlx > netcl > mine"}) {
    const std::string once = expand(text).value();
    EXPECT_EQ(expand(once).value(), once);
  }
}

TEST(Recipes, StandForStagesOfTheTableThatOpen) {
  for (const language::Recipe& recipe : language::recipes()) {
    if (recipe.around != nullptr) continue;
    EXPECT_TRUE(check(recipe.expansion + " > host")) << recipe.name;
    EXPECT_EQ(expand(recipe.expansion).value(), recipe.expansion) << recipe.name;
    const Stack stack = open(recipe.name + " > host");
    EXPECT_EQ(stack.text(), recipe.name + " > host");
    const Buffer buffer = stack.buffer(1000);
  }
}

TEST(Recipes, MlxServesWhatItsOwnCacheServes) {
  const Stack stack = open("mlx > host");
  stack.buffer(1_MiB).reset();
  EXPECT_EQ(stack.buffer(1_MiB - 8_KiB + 64).capacity(), 1_MiB)
      << "two pages less than the block: it fits";
  EXPECT_EQ(stack.buffer(1_MiB - 8_KiB).capacity(), 1_MiB - 8_KiB) << "and no more";
  EXPECT_EQ(dynamic_cast<Cache&>(*stack).max_bytes(), 32_MiB);
}

TEST(Recipes, NetclHeedsItsEnvironment) {
  const std::pair<const char*, std::size_t> values[] = {
      {"4", 4_GiB}, {"0.5", 512_MiB}, {"1", 1_GiB}, {"2.5", 2560_MiB}, {"100", 100_GiB}};
  for (const auto& [text, bytes] : values) {
    const testing::Environment environment(netcl_variable, text);
    EXPECT_EQ(dynamic_cast<Cache&>(*open("netcl > host")).max_bytes(), bytes) << text;
  }
  const testing::Environment environment(netcl_variable, "0.5");
  EXPECT_EQ(expand("netcl > host").value(), netcl_with("512MiB") + " > host");
  EXPECT_EQ(language::find_recipe("netcl")->expansion, netcl_with("4GiB"))
      << "documentation does not";
}

TEST(Recipes, NonsenseInTheEnvironmentNamesTheVariable) {
  for (const std::string text :
       {"", "abc", "-1", "0", "0.0", "4GiB", "1e3", "nan", "inf", "99999999999999", " 4"}) {
    const testing::Environment environment(netcl_variable, text.c_str());
    const auto stack = try_open("limit(1GiB) > netcl > host");
    ASSERT_FALSE(stack) << text;
    EXPECT_EQ(std::string(stack.error().what()),
              "the environment variable NETCL_MAX_CACHED_GB is '" + text +
                  "'; it must be a positive number of GiB, such as 4 or 0.5\n"
                  "  limit(1GiB) > netcl > host\n"
                  "                ^~~~~");
    EXPECT_EQ(expand("netcl > host").error().position(), 0U);
    EXPECT_TRUE(try_open("cache > host")) << "only the recipe reads it";
  }
}

TEST(Recipes, ProblemsOfTheirStagesPointAtThem) {
  const auto stack = try_open("cache > mlx");
  ASSERT_FALSE(stack);
  EXPECT_EQ(stack.error().position(), 8U);
  EXPECT_EQ(stack.error().length(), 3U);
}

}  // namespace
}  // namespace cistern
