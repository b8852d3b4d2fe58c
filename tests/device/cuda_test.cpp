// The memory of a CUDA GPU, over a driver that is not there: what it gives, in which context, and
// what becomes of a call that fails, whichever it is.
#include "cistern/device/cuda.hpp"

#include <array>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/residency.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/device/host.hpp"
#include "cistern/stack/stack.hpp"
#include "support/cuda_machine.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using CudaKind = CudaDevice::Memory;

class CudaMemory : public testing::OnFakeCuda, public ::testing::WithParamInterface<CudaKind> {
 protected:
  [[nodiscard]] Ref<CudaDevice> kind() const { return device(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Kinds, CudaMemory,
                         ::testing::Values(CudaKind::device, CudaKind::managed, CudaKind::pinned,
                                           CudaKind::async),
                         [](const auto& kind) { return testing::name_of(kind.param); });

TEST_P(CudaMemory, BlocksKeepWhatIsWritten) {
  const auto opened = kind();
  std::vector<Block> blocks;
  for (const std::size_t bytes : {std::size_t{4}, 1_KiB, 64_KiB, 1_MiB, 5_MiB})
    blocks.push_back(opened->allocate(bytes));
  for (std::size_t i = 0; i < blocks.size(); ++i)
    ASSERT_TRUE(write(*opened, blocks[i], static_cast<char>('a' + i)));
  for (std::size_t i = 0; i < blocks.size(); ++i)
    EXPECT_TRUE(holds(*opened, blocks[i], static_cast<char>('a' + i)));
  EXPECT_EQ(opened->validate(), "");
  for (const Block& block : blocks)
    EXPECT_TRUE(opened->deallocate(block));
  testing::expect_nothing_held(*opened);
}

TEST_P(CudaMemory, CopiesAndUploadsMoreThanTheStagingHolds) {
  for (const bool events_pass : {true, false}) {
    fake().hold_events(!events_pass);
    const auto opened = device({.memory = GetParam(), .staging = 64_KiB});
    const Stream stream = opened->stream(fake().make_stream());
    const Block from = opened->allocate({.bytes = 1_MiB, .stream = stream});
    const Block to = opened->allocate({.bytes = 1_MiB, .stream = stream});
    std::vector<std::byte> sent(1_MiB - 10);
    testing::Random random(testing::seed_or(7));
    for (std::byte& byte : sent)
      byte = static_cast<std::byte>(random.below(256));
    Transfer& transfer = *opened->transfer();
    ASSERT_TRUE(transfer.upload(from, 10, sent, stream));
    ASSERT_TRUE(transfer.copy(to, 0, from, 10, sent.size(), stream));
    std::vector<std::byte> read(sent.size());
    ASSERT_TRUE(transfer.download(read, to, 0, stream));
    EXPECT_EQ(read, sent);
    EXPECT_EQ(transfer.fill(to, to.bytes, 1, {}, {}).error().code, Errc::invalid_block);
    EXPECT_EQ(transfer.copy(to, 1, from, 0, to.bytes, {}).error().code, Errc::invalid_block);
    EXPECT_EQ(transfer.download(read, to, 11, {}).error().code, Errc::invalid_block);
    EXPECT_EQ(transfer.upload(to, 11, std::vector<std::byte>(to.bytes), {}).error().code,
              Errc::invalid_block);
    opened->deallocate(from, stream);
    opened->deallocate(to, stream);
  }
}

TEST_P(CudaMemory, AnUploadDoesWithoutStaging) {
  const auto opened = device({.memory = GetParam(), .staging = 0});
  const Block block = opened->allocate(1_MiB);
  const std::size_t pinned = fake().figures().host;
  ASSERT_TRUE(opened->transfer()->upload(block, 0, std::vector(1_MiB, std::byte('n')), {}));
  EXPECT_TRUE(holds(*opened, block, 'n'));
  EXPECT_EQ(fake().figures().host, pinned);
  opened->deallocate(block);
}

TEST_P(CudaMemory, WhatIsTooLargeIsRefusedBeforeTheDriverIsAsked) {
  const auto opened = kind();
  const std::size_t before = fake().calls();
  for (const std::size_t bytes :
       {opened->limits().max_allocation + 1, std::size_t{1} << 50U, unbounded}) {
    const Expected<Block> block = opened->try_allocate({.bytes = bytes});
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::too_large);
  }
  EXPECT_EQ(opened->try_allocate({.bytes = 1, .alignment = 512}).error().code, Errc::bad_alignment);
  EXPECT_EQ(fake().calls(), before);
  EXPECT_TRUE(opened->allocate(std::size_t{0}).empty());
}

TEST_P(CudaMemory, PoolsStandOnIt) {
  for (const char* pools : {"cache > mine", "coalesce > mine", "arena > mine",
                            "arena > coalesce > mine", "planned > coalesce > mine"}) {
    SCOPED_TRACE(pools);
    const auto opened = kind();
    const Stack stack = open(pools, {{"mine", opened}});
    testing::Random random(testing::seed_or(5));
    std::vector<std::pair<Block, char>> blocks;
    for (int step = 0; step < 300; ++step) {
      if (random.chance(55) || blocks.empty()) {
        const Block block = stack->allocate(1 + random.below(64_KiB));
        ASSERT_TRUE(write(*opened, block, static_cast<char>(step)));
        blocks.emplace_back(block, static_cast<char>(step));
      } else {
        const std::size_t i = random.below(blocks.size());
        EXPECT_TRUE(holds(*opened, blocks[i].first, blocks[i].second));
        EXPECT_TRUE(stack->deallocate(blocks[i].first));
        blocks[i] = blocks.back();
        blocks.pop_back();
      }
    }
    EXPECT_EQ(stack->validate(), "");
    for (const auto& [block, value] : blocks) {
      EXPECT_TRUE(holds(*opened, block, value));
      stack->deallocate(block);
    }
    stack->trim();
    EXPECT_EQ(opened->stats().reserved.current, 0U);
  }
}

// --- Failures. ---

/// A stream that ends with the program's use of it.
class ProgramStream {
 public:
  explicit ProgramStream(testing::FakeCuda& fake) : fake_(fake), handle_(fake.make_stream()) {}
  ProgramStream(const ProgramStream&) = delete;
  ProgramStream& operator=(const ProgramStream&) = delete;
  ProgramStream(ProgramStream&&) = delete;
  ProgramStream& operator=(ProgramStream&&) = delete;
  ~ProgramStream() { fake_.destroy_stream(handle_); }
  [[nodiscard]] CUstream_st* handle() const { return handle_; }

 private:
  testing::FakeCuda& fake_;
  CUstream_st* handle_;
};

/// What a program does with a device, from its making to its end; false if a call failed that can
/// say so. Whatever does, nothing is left.
bool use_device(testing::FakeCuda& fake, CudaKind memory) try {
  const auto opened =
      make<CudaDevice>(fake.api(), CudaDevice::Options{.memory = memory, .staging = 16_KiB});
  const ProgramStream program(fake);
  const Stream other = opened->stream(program.handle());
  bool is_done = true;
  const auto note = [&](bool succeeded) { is_done = is_done && succeeded; };
  {
    const Stack stack = open("cache > mine", {{"mine", opened}});
    for (const Stream stream : {Stream{}, other, Stream{}}) {
      const Expected<Block> block = stack->try_allocate({.bytes = 100_KiB, .stream = stream});
      note(block.has_value());
      if (!block) continue;
      Transfer& transfer = *opened->transfer();
      const std::vector<std::byte> sent(40_KiB, std::byte('u'));
      note(transfer.fill(*block, 0, block->bytes, std::byte('f'), stream).has_value());
      note(transfer.upload(*block, 0, sent, stream).has_value());
      if (opened->residency() != nullptr) {
        const std::array<Block, 1> parts{*block};
        note(opened->residency()->make_resident(parts).has_value());
        opened->residency()->end_residency(parts);
      }
      stack->deallocate(*block, stream);
    }
    EXPECT_EQ(stack->validate(), "");
    EXPECT_EQ(stack->stats().live_blocks.current, 0U);
    static_cast<void>(opened->free_memory());
    stack->trim();
  }
  EXPECT_EQ(opened->validate(), "");
  opened->stream_order()->retire(other);
  return is_done;
} catch (const std::runtime_error& error) {
  EXPECT_NE(std::string(error.what()).find("CUDA_ERROR_"), std::string::npos) << error.what();
  return false;
}

TEST_P(CudaMemory, AFailureOfAnyCallLeavesNothingBehind) {
  const testing::CaughtReports reports;
  for (const CudaResult code : {CudaResult::out_of_memory, CudaResult::not_supported}) {
    std::size_t failed = 0;
    for (std::size_t n = 1;; ++n) {
      ASSERT_LT(n, 1000U);
      fake().fail_next(n, code);
      const bool is_done = use_device(fake(), GetParam());
      const std::string call = fake().failed_call();
      fake().fail_next(0, CudaResult::success);
      ASSERT_EQ(fake().leaks(), "") << call << ", the " << n << "-th call";
      ASSERT_EQ(fake().misuses(), std::vector<std::string>()) << call << ", the " << n << "-th";
      if (!is_done) ++failed;
      if (call.empty()) break;
    }
    EXPECT_GT(failed, 10U);
  }
}

TEST_P(CudaMemory, AFailedRequestNamesTheErrorAndChangesNothing) {
  const auto opened = kind();
  opened->deallocate(opened->allocate(1_KiB));
  std::size_t exhausted = 0;
  for (std::size_t n = 1;; ++n) {
    const std::size_t idle = opened->stats().cached.current;
    fake().fail_next(n, CudaResult::out_of_memory);
    const Expected<Block> block = opened->try_allocate({.bytes = 100_KiB});
    const std::string call = fake().failed_call();
    fake().fail_next(0, CudaResult::success);
    if (block) opened->deallocate(*block);
    if (call.empty()) break;
    if (block) continue;
    EXPECT_EQ(block.error().code, Errc::out_of_memory);
    EXPECT_EQ(std::string(block.error().detail), "CUDA_ERROR_OUT_OF_MEMORY") << call;
    EXPECT_EQ(opened->stats().reserved.current, idle);
    EXPECT_EQ(opened->validate(), "");
    ++exhausted;
  }
  const bool makes_room = GetParam() == CudaKind::async;  // of what its pool keeps, and asks again
  EXPECT_GE(exhausted, makes_room ? 1U : 2U);
}

TEST_P(CudaMemory, ABrokenContextIsToldFromAnEmptyGpu) {
  const testing::CaughtReports reports;
  for (const CudaResult code :
       {CudaResult::illegal_address, CudaResult::ecc_uncorrectable, CudaResult::launch_failed}) {
    on({});
    const auto opened = kind();
    const Block block = opened->allocate(1_MiB);
    EXPECT_FALSE(opened->is_broken());
    fake().break_context(code);
    const std::string detail = cuda_name(code);
    const Expected<Block> refused = opened->try_allocate({.bytes = 1_KiB});
    ASSERT_FALSE(refused);
    EXPECT_EQ(describe(refused.error()),
              "cuda refused 1024 bytes: the device failed (" + detail + ")");
    EXPECT_FALSE(refused.error().is_exhaustion());
    EXPECT_TRUE(opened->is_broken());
    EXPECT_EQ(opened->transfer()->fill(block, 0, 1, {}, {}).error().code, Errc::device_failed);
    const std::size_t calls = fake().calls();
    EXPECT_FALSE(opened->try_allocate({.bytes = 1_KiB}));
    EXPECT_EQ(fake().calls(), calls) << "it is not asked again";
    EXPECT_TRUE(opened->deallocate(block));
    EXPECT_EQ(opened->stats().live_granted.current, 0U);
    fake().break_context(CudaResult::success);
  }
  EXPECT_LE(reports.all().size(), 3U) << "one for each device";
  on({});  // what a broken context had is lost with it
}

TEST_P(CudaMemory, TheHostsRunningOutOfMemoryFailsARequestAndNoFree) {
  const auto opened = kind();
  const Stream one = opened->stream(fake().make_stream());
  const Stream two = opened->stream(fake().make_stream());
  std::vector<Block> blocks;
  blocks.reserve(1000);
  int refused = 0;
  for (int n = 1; n < 6; ++n) {
    while (blocks.size() < 200U * static_cast<std::size_t>(n) - 100) {
      const testing::FailingNew failing(n);
      const Expected<Block> block = opened->try_allocate({.bytes = 1_KiB, .stream = one});
      if (!block) {
        EXPECT_EQ(block.error().code, Errc::out_of_memory);
        ++refused;
        break;
      }
      blocks.push_back(*block);
    }
  }
  EXPECT_GT(refused, 0);
  {
    const testing::FailingNew failing(1);
    EXPECT_TRUE(opened->stream_order()->wait(two, one)) << "an event that cannot be kept goes back";
    for (const Block& block : blocks)
      EXPECT_TRUE(opened->deallocate(block, one));
  }
  testing::expect_nothing_held(*opened);
}

TEST_P(CudaMemory, WhatCannotBeGivenBackIsReportedOnce) {
  const testing::CaughtReports reports;
  const auto opened = kind();
  const Block first = opened->allocate(1_MiB);
  const Block second = opened->allocate(1_MiB);
  opened->deallocate(opened->allocate(1_MiB));  // which makes the event
  const auto calls_of_a_free = [&] {
    const Block block = opened->allocate(1_MiB);
    const std::size_t before = fake().calls();
    opened->deallocate(block);
    return fake().calls() - before;
  }();
  fake().fail_next(calls_of_a_free, CudaResult::unknown);  // the last of them
  opened->deallocate(first);
  EXPECT_TRUE(fake().failed_call().starts_with("cuMemFree")) << fake().failed_call();
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(reports.all()[0], "cuda could not give 1048576 bytes back: CUDA_ERROR_UNKNOWN");
  fake().fail_next(calls_of_a_free, CudaResult::unknown);
  opened->deallocate(second);
  EXPECT_EQ(reports.all().size(), 1U);
  opened->trim();
  EXPECT_EQ(opened->stats().reserved.current, 0U);
}

// --- Contexts. ---

TEST_P(CudaMemory, MakesNoContextBeforeTheFirstRequestAndLeavesThreadsAsTheyWere) {
  const auto opened = kind();
  const Stack stack = open("limit(50%) > coalesce > mine", {{"mine", opened}});
  static_cast<void>(stack->largest_allocatable());
  static_cast<void>(stack->stats());
  stack->trim();
  ASSERT_TRUE(opened->stream_order()->synchronize({}));
  EXPECT_EQ(fake().figures().contexts, 0U);
  EXPECT_EQ(opened->context(), nullptr);
  const Block block = stack->allocate(1_MiB);
  EXPECT_EQ(opened->context(), fake().primary_context());
  EXPECT_EQ(fake().figures().contexts, 1U);
  EXPECT_EQ(fake().current(), nullptr);
  std::thread([&] {
    EXPECT_TRUE(write(*opened, block, 't'));
    EXPECT_EQ(fake().current(), nullptr);
    stack->deallocate(block);
  }).join();
}

class CudaTest : public testing::OnFakeCuda {};

TEST_F(CudaTest, TakesTheContextThatIsCurrentIfItIsOfTheGpu) {
  on({.gpus = 2});
  const auto context_of_first_request = [&](CUctx_st* current) {
    const auto opened = device();
    fake().push(current);
    const Block block = opened->allocate(1_KiB);
    EXPECT_EQ(fake().current(), current);
    fake().pop();
    CUctx_st* const taken = opened->context();
    opened->deallocate(block);
    return taken;
  };
  CUctx_st* const own = fake().make_context(0);
  CUctx_st* const of_another = fake().make_context(1);
  EXPECT_EQ(context_of_first_request(own), own);
  CUctx_st* const primary = context_of_first_request(of_another);
  EXPECT_EQ(primary, fake().primary_context(0));
  EXPECT_EQ(context_of_first_request(own), own) << "where there is a primary one, too";
  EXPECT_EQ(context_of_first_request(primary), primary);
}

TEST_F(CudaTest, StandsInAContextOfTheProgramsAndOnItsGpu) {
  on({.gpus = 2});
  CUctx_st* const own = fake().make_context(1);
  const auto opened = make<CudaDevice>(fake().api(), own, CudaDevice::Options{});
  EXPECT_EQ(opened->ordinal(), 1);
  EXPECT_EQ(opened->context(), own);
  const Block block = opened->allocate(1_MiB);
  EXPECT_TRUE(write(*opened, block, 'o'));
  EXPECT_THROW((void)opened->stream(fake().make_stream()), std::invalid_argument);
  fake().push(own);
  EXPECT_NE(opened->stream(fake().make_stream()).id, 0U);
  fake().pop();
  opened->deallocate(block);
  EXPECT_EQ(fake().figures().contexts, 0U) << "no primary one was made";
}

// --- GPUs. ---

TEST_F(CudaTest, WhatIsNotThereIsSaid) {
  const auto why_not = [](const char* text) -> std::string {
    try {
      static_cast<void>(open(text));
      return "opened";
    } catch (const DeviceAbsent& absent) {
      return absent.what();
    }
  };
  EXPECT_EQ(why_not("cuda"), "opened");
  EXPECT_EQ(why_not("cuda(device=1)"),
            "there is no cuda device: no GPU has the number 1; there are 1, from 0 on");
  on({.has_pools = false, .has_managed = false});
  EXPECT_EQ(why_not("cuda(memory=async)"),
            "there is no cuda device: Fake GPU 0 has no memory pools of the driver's "
            "(memory=async)");
  EXPECT_EQ(why_not("cuda(memory=managed)"),
            "there is no cuda device: Fake GPU 0 has no managed memory (memory=managed)");
  on({.gpus = 0});
  EXPECT_EQ(why_not("cuda"),
            "there is no cuda device: the driver finds no GPU (CUDA_ERROR_NO_DEVICE)");
  std::string why;
  EXPECT_TRUE(find_cuda_devices(why).empty());
  EXPECT_EQ(why, "the driver finds no GPU (CUDA_ERROR_NO_DEVICE)");
  fake().fail_next(1, CudaResult::unknown);
  EXPECT_EQ(why_not("cuda"),
            "there is no cuda device: the driver cannot begin (CUDA_ERROR_UNKNOWN)");
}

TEST_F(CudaTest, AnOlderDriverIsToldByWhatItLacks) {
  const auto missing_of = [&](const std::string& lacks) -> std::string {
    CudaApi api;
    const auto find = [&](const std::string& name, int /*version*/) {
      return name != lacks ? reinterpret_cast<void*>(fake().api().init) : nullptr;
    };
    const char* const missing = fill_cuda_api(api, find);
    EXPECT_EQ(api.stream_id == nullptr, lacks == "cuStreamGetId");
    EXPECT_NE(api.init, nullptr);
    return missing != nullptr ? missing : "";
  };
  EXPECT_EQ(missing_of(""), "");
  EXPECT_EQ(missing_of("cuMemMap"), "cuMemMap");
  EXPECT_EQ(missing_of("cuMemPrefetchAsync"), "cuMemPrefetchAsync");
  EXPECT_EQ(missing_of("cuStreamGetId"), "") << "that is for drivers from 12.0 on";
}

TEST_F(CudaTest, ErrorsAreNamedAndToldApart) {
  EXPECT_STREQ(cuda_name(CudaResult::stream_capture_isolation),
               "CUDA_ERROR_STREAM_CAPTURE_ISOLATION");
  EXPECT_STREQ(cuda_name(static_cast<CudaResult>(12345)), "a CUDA error without a name");
  for (const CudaResult code : {CudaResult::success, CudaResult::out_of_memory,
                                CudaResult::invalid_value, CudaResult::not_supported})
    EXPECT_FALSE(is_sticky(code) || is_of_capture(code)) << cuda_name(code);
  EXPECT_TRUE(is_of_capture(CudaResult::captured_event));
  EXPECT_FALSE(is_of_capture(CudaResult::unknown));
}

TEST_F(CudaTest, FindsEveryGpuWithoutAContext) {
  on({.gpus = 2, .memory = 80_GiB, .has_concurrent_managed = false});
  std::string why;
  const std::vector<CudaFound> found = find_cuda_devices(why);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(why, "");
  EXPECT_EQ(found[1].name, "Fake GPU 1");
  EXPECT_EQ(found[1].number, 1);
  EXPECT_EQ(found[1].driver_version, 12040);
  EXPECT_EQ(found[1].compute_capability, 90);
  EXPECT_EQ(found[1].total_memory, 80_GiB);
  EXPECT_TRUE(found[1].has_managed);
  EXPECT_FALSE(found[1].has_concurrent_managed);
  EXPECT_EQ(fake().figures().contexts, 0U);
  for (std::size_t n = 1; n < 30; ++n) {
    fake().fail_next(n, CudaResult::unknown);
    if (find_cuda_devices(why).empty()) {
      EXPECT_NE(why.find("CUDA_ERROR_UNKNOWN"), std::string::npos) << why;
    }
    fake().fail_next(0, CudaResult::success);
  }
}

TEST_F(CudaTest, EachGpuHasItsOwnMemoryAndBlocksKnowTheirs) {
  on({.gpus = 2, .memory = 4_GiB});
  const testing::CaughtReports reports;
  const auto first = device({.device = 0, .ceiling = 0});
  const auto second = device({.device = 1, .ceiling = 0});
  EXPECT_NE(&first->registry(), &second->registry());
  const Block block = first->allocate(3_GiB);
  const Block other = second->allocate(3_GiB);
  EXPECT_FALSE(second->deallocate(block));
  EXPECT_EQ(first->free_memory(), 1_GiB);
  EXPECT_TRUE(first->deallocate(block));
  EXPECT_TRUE(second->deallocate(other));
}

TEST_F(CudaTest, ObjectsForOneGpuShareItsMemoryAndItsPools) {
  on({.memory = 64_MiB});
  const auto first = device({.ceiling = 0});
  const auto second = device({.memory = CudaKind::async, .ceiling = 0});
  EXPECT_EQ(&first->registry(), &second->registry());
  const Stack hoard = open("cache > mine", {{"mine", first}});
  hoard->deallocate(hoard->allocate(48_MiB));
  const Expected<Block> refused = second->try_allocate({.bytes = 32_MiB});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  EXPECT_EQ(refused.error().available, second->free_memory());
  const Stack needy = open("retry > coalesce > mine", {{"mine", second}});
  const Block block = needy->allocate(32_MiB);
  EXPECT_EQ(hoard->stats().reserved.current, 0U) << "the other stack gave way";
  needy->deallocate(block);
}

TEST_F(CudaTest, TheCeilingLeavesWhatOthersNeed) {
  const auto total = [&](std::size_t memory, std::size_t ceiling, CudaKind kind) {
    on({.memory = memory});
    return device({.memory = kind, .ceiling = ceiling})->limits().total_memory;
  };
  constexpr std::size_t automatic = CudaDevice::automatic_ceiling;
  EXPECT_EQ(total(80_GiB, automatic, CudaKind::device), 72_GiB);
  EXPECT_EQ(total(8_GiB, automatic, CudaKind::async), 7_GiB);
  EXPECT_EQ(total(1_GiB, automatic, CudaKind::device), 512_MiB);
  EXPECT_EQ(total(80_GiB, 0, CudaKind::device), 80_GiB);
  EXPECT_EQ(total(80_GiB, 90_GiB, CudaKind::device), 80_GiB);
  EXPECT_EQ(total(80_GiB, 1000, CudaKind::device), 768U);
  EXPECT_EQ(total(80_GiB, automatic, CudaKind::managed), 80_GiB + host_memory());
  EXPECT_EQ(total(80_GiB, 90_GiB, CudaKind::managed), std::min(90_GiB, 80_GiB + host_memory()));
  EXPECT_EQ(total(80_GiB, automatic, CudaKind::pinned), host_memory());
  for (const std::size_t nonsense : {1U, 255U})
    EXPECT_THROW((void)device({.ceiling = nonsense}), std::invalid_argument);
  EXPECT_FALSE(check("cuda(ceiling=255)"));
  EXPECT_FALSE(check("cuda(ceiling=-1)"));
  EXPECT_TRUE(check("cuda(ceiling=automatic)"));
  EXPECT_EQ(open("cuda(ceiling=1GiB, memory=async)")->device().limits().total_memory, 1_GiB);
}

TEST_F(CudaTest, TheCeilingHoldsForAllThreadsTogether) {
  const auto opened = device({.ceiling = 8_MiB});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 50; ++turn) {
        if (const Expected<Block> block = opened->try_allocate({.bytes = 3_MiB}))
          opened->deallocate(*block);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_LE(opened->stats().reserved.peak, 8_MiB);
  EXPECT_EQ(opened->free_memory(), 8_MiB);
}

// --- Kinds of memory. ---

TEST_F(CudaTest, ManagedMemoryIsMoreThanTheGpuHas) {
  on({.memory = 1_GiB});
  const auto opened = device(CudaKind::managed);
  EXPECT_TRUE(opened->limits().host_addressable);
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i)
    blocks.push_back(opened->allocate(512_MiB));
  EXPECT_EQ(fake().figures().managed, 2_GiB);
  EXPECT_EQ(fake().figures().prefetches, 0U) << "nobody asked for it";
  for (const Block& block : blocks)
    opened->deallocate(block);
}

TEST_F(CudaTest, ManagedMemoryThatCannotBePagedOutIsTheGpus) {
  on({.memory = 1_GiB, .has_concurrent_managed = false});
  const auto opened = device(CudaKind::managed);
  EXPECT_EQ(opened->limits().total_memory, 1_GiB);
  EXPECT_FALSE(opened->limits().host_addressable);
  EXPECT_EQ(opened->residency(), nullptr);
}

TEST_F(CudaTest, ResidencyOfManagedMemoryMovesItToTheGpu) {
  const auto opened = device(CudaKind::managed);
  const Stack stack = open("cache > resident > mine", {{"mine", opened}});
  const Block block = stack->allocate(1_MiB);
  EXPECT_EQ(opened->stats().resident.current, 1_MiB);
  EXPECT_EQ(fake().figures().preferred, 1_MiB);
  EXPECT_EQ(fake().figures().prefetches, 1U);
  stack->deallocate(block);
  stack->trim();
  EXPECT_EQ(opened->stats().resident.current, 0U);
  EXPECT_EQ(fake().figures().preferred, 0U);
  for (const CudaKind kind : {CudaKind::device, CudaKind::pinned, CudaKind::async})
    EXPECT_EQ(device(kind)->residency(), nullptr);
}

TEST_F(CudaTest, AHintThatFailsIsRefusedAndLeavesNoAdvice) {
  const auto opened = device(CudaKind::managed);
  const std::array<Block, 2> parts{opened->allocate(1_MiB), opened->allocate(2_MiB)};
  std::size_t refused = 0;
  for (std::size_t n = 1;; ++n) {
    fake().fail_next(n, CudaResult::not_supported);
    const bool is_resident = opened->residency()->make_resident(parts).has_value();
    const bool is_over = fake().failed_call().empty();
    fake().fail_next(0, CudaResult::success);
    if (is_over) break;
    if (is_resident) {
      opened->residency()->end_residency(parts);
    } else {
      ++refused;
    }
    EXPECT_EQ(fake().figures().preferred, 0U) << n;
  }
  EXPECT_GT(refused, 4U);
  EXPECT_EQ(opened->stats().residency_refusals, refused);
  opened->residency()->end_residency(parts);
  for (const Block& part : parts)
    opened->deallocate(part);
}

TEST_F(CudaTest, TheDriversPoolKeepsWhatIsFreedUntilItIsTrimmed) {
  const auto opened = device(CudaKind::async);
  const Stream stream = opened->stream(fake().make_stream());
  const Block first = opened->allocate({.bytes = 2_MiB, .stream = stream});
  const Block second = opened->allocate({.bytes = 6_MiB, .stream = stream});
  ASSERT_TRUE(write(*opened, first, 'p', stream));
  EXPECT_EQ(opened->stats().cached.current, 0U);
  opened->deallocate(first, stream);
  opened->deallocate(second, stream);
  EXPECT_EQ(opened->stats().cached.current, 8_MiB);
  EXPECT_EQ(opened->stats().reserved.current, 8_MiB);
  EXPECT_EQ(opened->validate(), "");
  EXPECT_EQ(fake().figures().used, 8_MiB);
  const Block again = opened->allocate({.bytes = 2_MiB, .stream = stream});
  EXPECT_EQ(again.memory, first.memory);
  EXPECT_EQ(fake().figures().used, 8_MiB);
  EXPECT_EQ(opened->trim(6_MiB), 0U);
  EXPECT_EQ(opened->trim(), 6_MiB);
  EXPECT_EQ(fake().figures().used, 2_MiB);
  opened->deallocate(again, stream);
  EXPECT_EQ(opened->trim(), 2_MiB);
  EXPECT_EQ(fake().figures().used, 0U);
}

TEST_F(CudaTest, WhatTheDriversPoolKeepsMakesRoomForALargerRequest) {
  on({.memory = 1_GiB});
  const auto opened = device({.memory = CudaKind::async, .ceiling = 0});
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  opened->deallocate(opened->allocate({.bytes = 500_MiB, .stream = stream}), stream);
  fake().synchronize(handle);
  opened->deallocate(opened->allocate({.bytes = 700_MiB, .stream = stream}), stream);
}

TEST_F(CudaTest, WhatTheDriversPoolKeepsIsUnderTheCeiling) {
  const auto opened = device({.memory = CudaKind::async, .ceiling = 16_MiB});
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  const Block kept = opened->allocate({.bytes = 2_MiB, .stream = stream});
  for (const std::size_t bytes : {8_MiB, 10_MiB, 12_MiB, 14_MiB, 2_MiB, 4_MiB, 14_MiB}) {
    opened->deallocate(opened->allocate({.bytes = bytes, .stream = stream}), stream);
    EXPECT_LE(fake().figures().used, 16_MiB) << bytes;
    fake().synchronize(handle);
  }
  EXPECT_GT(opened->stats().cached.current, 0U);
  const std::size_t before = fake().figures().used;
  for (int i = 0; i < 10; ++i)
    opened->deallocate(opened->allocate({.bytes = 14_MiB, .stream = stream}), stream);
  EXPECT_EQ(fake().figures().used, before) << "what fits is kept";
  EXPECT_EQ(fake().figures().events_made, 0U) << "and nothing waits";
  opened->deallocate(kept, stream);
}

TEST_F(CudaTest, PinnedMemoryIsTheHosts) {
  const auto opened = device(CudaKind::pinned);
  const auto of_the_gpu = device();
  EXPECT_TRUE(opened->limits().host_addressable);
  EXPECT_FALSE(of_the_gpu->limits().host_addressable);
  EXPECT_NE(&opened->registry(), &of_the_gpu->registry());
  testing::Ledger ledger(*opened);
  for (const std::size_t bytes : {std::size_t{1}, 4_KiB, 3_MiB})
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  ledger.expect_in_order();
  EXPECT_EQ(fake().figures().used, 0U);
  ledger.free_all();
}

}  // namespace
}  // namespace cistern
