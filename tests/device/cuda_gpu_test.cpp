// The CUDA device on a GPU, where there is one: that the driver does what the fake one is made to
// do. Little memory is asked for, and no managed memory beyond what is free.
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "cistern/core/residency.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/stack/stack.hpp"
#include "device/cuda_api.hpp"
#include "support/cuda_kernels.hpp"
#include "support/cuda_machine.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using CudaKind = CudaDevice::Memory;

/// What a program does to capture a graph, and the library does not.
struct CudaGraphApi {
  CudaResult (*begin)(CUstream_st* stream, CudaCaptureMode mode) = nullptr;
  CudaResult (*end)(CUstream_st* stream, void** graph) = nullptr;
  CudaResult (*destroy)(void* graph) = nullptr;

  static CudaGraphApi system() {
    CudaGraphApi api;
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    const auto find = [&](auto& entry, const char* name) {
      entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(dlsym(library, name));
    };
    find(api.begin, "cuStreamBeginCapture_v2");
    find(api.end, "cuStreamEndCapture");
    find(api.destroy, "cuGraphDestroy");
    return api;
  }
};

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (find_cuda_devices(why).empty()) GTEST_SKIP() << "no CUDA device: " << why;
    api_ = CudaApi::system(why);
  }

  [[nodiscard]] static Ref<CudaDevice> device(CudaKind memory) {
    return make<CudaDevice>(CudaDevice::Options{.memory = memory});
  }
  /// In the device's context, beside all others.
  [[nodiscard]] Stream make_stream(CudaDevice& device) {
    device.deallocate(device.allocate(1_KiB));
    CUstream_st* made = nullptr;
    CUctx_st* popped = nullptr;
    EXPECT_EQ(api_->push_context(device.context()), CudaResult::success);
    EXPECT_EQ(api_->create_stream(&made, cuda_stream_non_blocking), CudaResult::success);
    EXPECT_EQ(api_->pop_context(&popped), CudaResult::success);
    return device.stream(made);
  }
  void end(CudaDevice& device, Stream stream) {
    device.stream_order()->retire(stream);
    EXPECT_EQ(api_->destroy_stream(handle(stream)), CudaResult::success);
  }
  [[nodiscard]] static CUstream_st* handle(Stream stream) {
    return static_cast<CUstream_st*>(stream.handle);
  }
  [[nodiscard]] static bool holds(CudaDevice& device, const Block& block, char value,
                                  Stream stream = {}) {
    std::vector<std::byte> bytes(block.bytes);
    return device.transfer()->download(bytes, block, 0, stream) &&
           bytes == std::vector<std::byte>(block.bytes, std::byte(value));
  }
  [[nodiscard]] const CudaApi& api() const { return *api_; }

 private:
  const CudaApi* api_ = nullptr;
};

class CudaMemoryOnGpu : public OnGpu, public ::testing::WithParamInterface<CudaKind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, CudaMemoryOnGpu,
                         ::testing::Values(CudaKind::device, CudaKind::managed, CudaKind::pinned,
                                           CudaKind::async),
                         [](const auto& kind) { return testing::name_of(kind.param); });

TEST_P(CudaMemoryOnGpu, PoolsKeepWhatIsWrittenOnTwoStreams) {
  const auto opened = device(GetParam());
  const Stream streams[] = {make_stream(*opened), make_stream(*opened)};
  for (const char* pools : {"limit(1GiB) > mine", "cache > mine", "coalesce > mine"}) {
    SCOPED_TRACE(pools);
    const Stack stack = open(pools, {{"mine", opened}});
    testing::Random random(testing::seed_or(5));
    std::vector<std::pair<Block, char>> blocks;
    for (int step = 0; step < 300; ++step) {
      const Stream stream = streams[random.below(2)];
      if (random.chance(55) || blocks.empty()) {
        const Block block = stack->allocate({.bytes = 1 + random.below(256_KiB), .stream = stream});
        const std::vector<std::byte> sent(block.bytes, std::byte(static_cast<char>(step)));
        ASSERT_TRUE(opened->transfer()->upload(block, 0, sent, stream));
        ASSERT_TRUE(opened->stream_order()->synchronize(stream));
        blocks.emplace_back(block, static_cast<char>(step));
      } else {
        const std::size_t i = random.below(blocks.size());
        EXPECT_TRUE(holds(*opened, blocks[i].first, blocks[i].second, stream));
        EXPECT_TRUE(stack->deallocate(blocks[i].first, stream));
        blocks[i] = blocks.back();
        blocks.pop_back();
      }
    }
    for (const auto& [block, value] : blocks) {
      EXPECT_TRUE(holds(*opened, block, value));
      stack->deallocate(block);
    }
    EXPECT_EQ(stack->validate(), "");
    stack->trim();
    EXPECT_EQ(opened->stats().reserved.current, 0U);
  }
  for (const Stream stream : streams)
    end(*opened, stream);
}

TEST_P(CudaMemoryOnGpu, IsCopiedAndFilledInOrderBetweenStreams) {
  const auto opened = device(GetParam());
  const Stream one = make_stream(*opened);
  const Stream two = make_stream(*opened);
  const Block from = opened->allocate({.bytes = 32_MiB, .stream = one});
  const Block to = opened->allocate({.bytes = 32_MiB, .stream = one});
  Transfer& transfer = *opened->transfer();
  for (char value = 'a'; value < 'k'; ++value) {
    ASSERT_TRUE(transfer.fill(from, 0, from.bytes, std::byte(value), one));
    ASSERT_TRUE(opened->stream_order()->wait(two, one));
    ASSERT_TRUE(transfer.copy(to, 0, from, 0, to.bytes, two));
    ASSERT_TRUE(opened->stream_order()->wait(one, two));
  }
  EXPECT_TRUE(holds(*opened, to, 'j', one));
  opened->deallocate(from, one);
  opened->deallocate(to, one);
  end(*opened, one);
  end(*opened, two);
}

TEST_P(CudaMemoryOnGpu, RequestsInACaptureFailAndLeaveItWhole) {
  const CudaGraphApi graphs = CudaGraphApi::system();
  const auto opened = device(GetParam());
  const Stream stream = make_stream(*opened);
  const Stack stack = open("cache > mine", {{"mine", opened}});
  stack->deallocate(stack->allocate({.bytes = 1_MiB, .stream = stream}), stream);
  const Block direct = opened->allocate({.bytes = 1_MiB, .stream = stream});
  ASSERT_EQ(graphs.begin(handle(stream), CudaCaptureMode::global), CudaResult::success);
  const Expected<Block> idle = stack->try_allocate({.bytes = 1_MiB, .stream = stream});
  EXPECT_TRUE(idle) << "it is there";
  EXPECT_TRUE(opened->transfer()->fill(*idle, 0, 1_KiB, std::byte(1), stream));
  const Expected<Block> refused = stack->try_allocate({.bytes = 64_MiB, .stream = stream});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::in_capture);
  EXPECT_THROW((void)stack->allocate({.bytes = 64_MiB, .stream = stream}), OutOfMemory);
  EXPECT_EQ(stack->stats().live_blocks.current, 1U);
  EXPECT_EQ(opened->stream(handle(stream)), stream);
  opened->deallocate(direct, stream);
  void* graph = nullptr;
  EXPECT_EQ(graphs.end(handle(stream), &graph), CudaResult::success);
  EXPECT_EQ(graphs.destroy(graph), CudaResult::success);
  stack->deallocate(*idle, stream);
  stack->trim();
  EXPECT_EQ(opened->stats().reserved.current, 0U);
  end(*opened, stream);
}

class CudaOnGpu : public OnGpu {};

// Memory passes between the streams all the time, and the host waits only in the end.
TEST_F(CudaOnGpu, KernelsOnFourStreamsFindWhatTheyWrote) {
  const auto opened = device(CudaKind::device);
  const Block others = opened->allocate(sizeof(std::uint32_t));
  const std::array<Stream, 4> streams{make_stream(*opened), make_stream(*opened),
                                      make_stream(*opened), make_stream(*opened)};
  ASSERT_EQ(api().push_context(opened->context()), CudaResult::success);
  const testing::CudaKernels kernels;
  ASSERT_EQ(kernels.result(), CudaResult::success);
  ASSERT_TRUE(opened->transfer()->fill(others, 0, others.bytes, std::byte(0), {}));
  ASSERT_TRUE(opened->stream_order()->synchronize({}));
  for (const char* pools : {"cache > mine", "coalesce > mine", "virtual > mine",
                            "planned > cache > mine", "arena > coalesce > mine"}) {
    SCOPED_TRACE(pools);
    const Stack stack = open(pools, {{"mine", opened}});
    testing::Random random(testing::seed_or(9));
    struct Written {
      Block block;
      Stream stream;
      std::uint32_t value = 0;
    };
    std::vector<Written> written;
    const auto read_and_free = [&](const Written& one) {
      EXPECT_EQ(kernels.count_others(one.block, one.value, others, handle(one.stream)),
                CudaResult::success);
      EXPECT_TRUE(stack->deallocate(one.block, one.stream));
    };
    for (std::uint32_t step = 1; step <= 2000; ++step) {
      if (written.size() < 8 || (written.size() < 64 && random.chance(50))) {
        const Stream stream = streams[random.below(4)];
        const Block block =
            stack->allocate({.bytes = 4 + 4 * random.below(256_KiB), .stream = stream});
        ASSERT_EQ(kernels.write(block, step, handle(stream)), CudaResult::success);
        written.push_back({block, stream, step});
      } else {
        std::swap(written[random.below(written.size())], written.back());
        read_and_free(written.back());
        written.pop_back();
      }
    }
    for (const Written& one : written)
      read_and_free(one);
    EXPECT_EQ(stack->validate(), "");
  }
  for (const Stream stream : streams)
    ASSERT_TRUE(opened->stream_order()->synchronize(stream));
  EXPECT_TRUE(holds(*opened, others, 0)) << "words that were another's";
  CUctx_st* popped = nullptr;
  EXPECT_EQ(api().pop_context(&popped), CudaResult::success);
  opened->deallocate(others);
  for (const Stream stream : streams)
    end(*opened, stream);
}

TEST_F(CudaOnGpu, PagesAreMappedAndUnmappedOneByOne) {
  const auto opened = device(CudaKind::device);
  VirtualMemory* const memory = opened->virtual_memory();
  ASSERT_NE(memory, nullptr);
  const std::size_t page = memory->page_sizes().smallest;
  const AddressRange range = memory->reserve(64 * page, page).value();
  for (int turn = 0; turn < 3; ++turn) {
    ASSERT_TRUE(memory->map(range, range.start + 4 * page, 8 * page));
    const Block all{.memory = range.start + 4 * page, .bytes = 8 * page};
    ASSERT_TRUE(opened->transfer()->fill(all, 0, all.bytes, std::byte('p'), {}));
    memory->unmap(range, range.start + 6 * page, 2 * page, {});
    EXPECT_TRUE(holds(*opened, {.memory = range.start + 4 * page, .bytes = 2 * page}, 'p'));
    EXPECT_TRUE(holds(*opened, {.memory = range.start + 8 * page, .bytes = 4 * page}, 'p'));
    ASSERT_TRUE(memory->map(range, range.start + 6 * page, 2 * page));
    ASSERT_TRUE(opened->transfer()->fill(all, 0, all.bytes, std::byte('q'), {}));
    EXPECT_TRUE(holds(*opened, all, 'q'));
    memory->unmap(range, range.start + 4 * page, 8 * page, {});
  }
  memory->release(range);
  testing::expect_nothing_held(*opened);
}

TEST_F(CudaOnGpu, MoreThanThereIsIsOutOfMemoryAndPoisonsNothing) {
  const auto opened = make<CudaDevice>(CudaDevice::Options{.ceiling = 0});
  const std::size_t free = opened->free_memory();
  const Expected<Block> block = opened->try_allocate({.bytes = free});
  if (!block) {
    EXPECT_EQ(block.error().code, Errc::out_of_memory);
    EXPECT_FALSE(opened->is_broken());
  }
  if (block) opened->deallocate(*block);
  const Block small = opened->allocate(1_MiB);
  EXPECT_LT(opened->free_memory(), opened->limits().total_memory);
  opened->deallocate(small);
}

TEST_F(CudaOnGpu, ManagedMemoryIsMovedWhereItIsAskedFor) {
  const auto opened = device(CudaKind::managed);
  if (opened->residency() == nullptr) GTEST_SKIP() << "this GPU cannot page";
  const Stack stack = open("cache > resident > mine", {{"mine", opened}});
  const Block block = stack->allocate(8_MiB);
  EXPECT_EQ(opened->stats().resident.current, 8_MiB);
  EXPECT_EQ(opened->stats().residency_refusals, 0U);
  stack->deallocate(block);
}

TEST_F(CudaOnGpu, NoContextIsMadeBeforeTheFirstRequest) {
  const auto opened = device(CudaKind::device);
  static_cast<void>(opened->free_memory());
  EXPECT_EQ(opened->context(), nullptr);
  CUctx_st* before = nullptr;
  CUctx_st* after = nullptr;
  EXPECT_EQ(api().current_context(&before), CudaResult::success);
  opened->deallocate(opened->allocate(1_KiB));
  EXPECT_EQ(api().current_context(&after), CudaResult::success);
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace cistern
