#include "stack/on_gpu.hpp"

#include <string>

#include <gtest/gtest.h>

namespace cistern::language {
namespace {

TEST(TextForGpu, GivesEachCudaThatNamesNoneTheNumber) {
  const auto on_third = [](const char* text) { return on_gpu(text, 3).value(); };
  EXPECT_EQ(on_third("cuda"), "cuda(device=3)");
  EXPECT_EQ(on_third("retry > coalesce > cuda"), "retry > coalesce > cuda(device=3)");
  EXPECT_EQ(on_third("cache > cuda( )"), "cache > cuda(device=3 )");
  EXPECT_EQ(on_third("virtual(page=2MiB) > cuda (ceiling=0)"),
            "virtual(page=2MiB) > cuda (device=3, ceiling=0)");
  EXPECT_EQ(on_third("cache > host"), "cache > host");
  EXPECT_EQ(on_third("trace(cuda) > cuda"), "trace(cuda) > cuda(device=3)");
}

TEST(TextForGpu, LeavesOneThatNamesItself) {
  for (const char* text : {"cache > cuda(device=1)", "cuda(1)", "cuda(memory=pinned, device=0)"})
    EXPECT_EQ(on_gpu(text, 3).value(), text);
}

TEST(TextForGpu, LooksIntoChoicesAndRecipes) {
  EXPECT_EQ(on_gpu("first(cuda, cache > cuda, cuda(1), host)", 2).value(),
            "first(cuda(device=2), cache > cuda(device=2), cuda(1), host)");
  EXPECT_EQ(on_gpu("fallback(cuda, otherwise=deferred(cuda, host))", 2).value(),
            "fallback(cuda(device=2), otherwise=deferred(cuda(device=2), host))");
  EXPECT_EQ(on_gpu("tier(C) > cuda", 2).value(),
            "deferred(cuda(device=2, memory=managed), otherwise=cuda(device=2))");
}

TEST(TextForGpu, AWrongTextIsAnErrorAtItsPlace) {
  const auto wrong = on_gpu("cache > cuda(ceiling=1)", 0);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().position(), std::string("cache > cuda(ceiling=").size());
}

}  // namespace
}  // namespace cistern::language
