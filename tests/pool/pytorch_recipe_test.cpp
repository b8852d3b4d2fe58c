// The recipe `pytorch` must place every block where the plain model of PyTorch's policy does,
// whatever is asked of it.
#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/pytorch_model.hpp"
#include "support/seed.hpp"

namespace cistern::testing {
namespace {

using namespace literals;

class PytorchRecipe : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(PytorchRecipe, PlacesAsTheModelDoes) {
  const std::uint64_t seed = seed_or(GetParam());
  SCOPED_TRACE(replay_hint(seed));
  Random random(seed);
  const std::uint64_t streams = 1 + random.below(3);
  const unsigned bits = static_cast<unsigned>(20 + random.below(8));  // of the largest request
  const Stack recipe = open("pytorch > simulated(1TiB)");
  const Ref<PytorchModel> model = make<PytorchModel>(
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = std::size_t{1} << 40}));

  struct Pair {
    Block of_recipe;
    Block of_model;
    Stream stream{};  // PyTorch's blocks stay with the stream they were requested for
  };
  std::vector<Pair> live;
  unsigned growing = 60;
  for (int step = 0; step < 4000; ++step) {
    if (step % 500 == 0) growing = static_cast<unsigned>(30 + random.below(40));
    if (live.empty() || random.chance(growing)) {
      // Edges of the policy are as likely as anything between.
      constexpr std::size_t edges[] = {512, 1_MiB, 2_MiB, 10_MiB, 20_MiB};  // NOLINT
      const std::size_t bytes =
          random.chance(20) ? edges[random.below(5)] - 1 + random.below(3) : random.size(bits);
      const Request request{.bytes = bytes,
                            .alignment = 0,
                            .stream = {.handle = nullptr, .id = random.below(streams)}};
      const Pair pair{recipe->allocate(request), model->allocate(request), request.stream};
      ASSERT_EQ(pair.of_recipe.memory, pair.of_model.memory) << "step " << step;
      ASSERT_EQ(pair.of_recipe.bytes, pair.of_model.bytes) << "step " << step;
      live.push_back(pair);
    } else {
      std::swap(live[random.below(live.size())], live.back());
      recipe->deallocate(live.back().of_recipe, live.back().stream);
      model->deallocate(live.back().of_model);
      live.pop_back();
    }
  }
  EXPECT_EQ(recipe->validate(), "");
  EXPECT_EQ(recipe->stats().reserved, model->stats().reserved);
  EXPECT_EQ(recipe->stats().misses, model->stats().misses);
  for (const Pair& pair : live) {
    recipe->deallocate(pair.of_recipe, pair.stream);
    model->deallocate(pair.of_model);
  }
  expect_all_accounted_for(*recipe);
  expect_all_accounted_for(*model);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PytorchRecipe, ::testing::Range<std::uint64_t>(1, 13));

}  // namespace
}  // namespace cistern::testing
