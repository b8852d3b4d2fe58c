// Threads that ask for PyTorch's memory: the first requests race to open a stack for each GPU, and
// what one thread was given another frees, as where gradients are computed on threads of their own.
#include <mutex>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "c/torch_memory.hpp"
#include "cistern/core/size.hpp"
#include "support/cuda_machine.hpp"
#include "support/environment.hpp"
#include "support/seed.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using namespace literals;

struct Tensor {
  void* memory = nullptr;
  int gpu = 0;
  CUstream_st* stream = nullptr;
};

/// What threads hand on to one another.
class TensorExchange {
 public:
  void put(const Tensor& tensor) {
    const std::lock_guard lock(mutex_);
    tensors_.push_back(tensor);
  }
  std::optional<Tensor> take() {
    const std::lock_guard lock(mutex_);
    if (tensors_.empty()) return std::nullopt;
    const Tensor tensor = tensors_.back();
    tensors_.pop_back();
    return tensor;
  }

 private:
  std::mutex mutex_;
  std::vector<Tensor> tensors_;
};

class TorchRace : public testing::OnFakeCuda, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, TorchRace,
                         ::testing::Values("", "cache > cuda", "virtual > cuda",
                                           "limit(1GiB) > cuda(memory=async)"));

TEST_P(TorchRace, ThreadsHandTensorsOnAndLoseNothing) {
  on({.gpus = 2});
  const testing::Environment environment("CISTERN_STACK", GetParam());
  const std::uint64_t seed = testing::seed_or(4);
  SCOPED_TRACE(testing::replay_hint(seed));
  TorchMemory memory;
  TensorExchange exchange;
  testing::on_threads(4, [&](unsigned index) {
    const int gpu = static_cast<int>(index % 2);
    fake().push(fake().primary_context(gpu));
    CUstream_st* const own = fake().make_stream(false);
    testing::Random random(seed + index);
    for (int step = 0; step < 400; ++step) {
      if (random.chance(50)) {
        const Tensor made{.memory = memory.allocate(1 + random.below(256_KiB), gpu, own),
                          .gpu = gpu,
                          .stream = own};
        fake().launch(own, {{.block = {.memory = made.memory, .bytes = 1},
                             .access = SimulatedQueues::Access::write}});
        exchange.put(made);
      } else if (const std::optional<Tensor> other = exchange.take()) {
        if (other->gpu == gpu && random.chance(20)) memory.also_used_on(other->memory, own);
        memory.free(other->memory, other->gpu, other->stream);
      }
      if (random.chance(1)) memory.trim();
      static_cast<void>(memory.stats(gpu));
    }
    fake().pop();
  });
  while (const std::optional<Tensor> left = exchange.take())
    memory.free(left->memory, left->gpu, left->stream);
  memory.trim();
  for (const int gpu : {0, 1}) {
    EXPECT_EQ(memory.stats(gpu).live_blocks.current, 0U);
    EXPECT_EQ(memory.stats(gpu).reserved.current, 0U);
    EXPECT_EQ(memory.stats(gpu).refused_frees, 0U);
  }
}

}  // namespace
}  // namespace cistern
