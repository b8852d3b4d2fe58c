// Tensors that leave and come in, with a consumer and a producer such as other libraries are.
#include "cistern/stack/dlpack.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/pmr.hpp"
#include "cistern/stack/stack.hpp"
#include "support/failing_new.hpp"
#include "support/fake_cuda.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using Extents = std::vector<std::int64_t>;

constexpr DLDataType float32 = {.code = kDLFloat, .bits = 32, .lanes = 1};
constexpr std::int64_t max_extent = std::numeric_limits<std::int64_t>::max();

/// What a consumer does to read an element, by the book.
float read_element(const DLTensor& tensor, const Extents& indices) {
  std::int64_t place = 0;
  for (std::size_t i = 0; i < indices.size(); ++i)
    place += indices[i] * tensor.strides[i];
  return reinterpret_cast<const float*>(static_cast<const std::byte*>(tensor.data) +
                                        tensor.byte_offset)[place];
}

void free_tensor(DLManagedTensor* tensor) {
  tensor->deleter(tensor);
}

TEST(ToDlpack, HandsTheMemoryOverWithItsShape) {
  const Stack stack = open("cache > host");
  Buffer buffer = stack.buffer(6 * sizeof(float));
  for (std::size_t i = 0; i < 6; ++i)
    buffer.as<float>()[i] = static_cast<float>(i);
  void* const place = buffer.data();
  const Extents shape = {2, 3};
  DLManagedTensor* const tensor = to_dlpack(std::move(buffer), {.shape = shape});
  EXPECT_TRUE(buffer.empty());  // NOLINT(bugprone-use-after-move): that is the test
  const DLTensor& seen = tensor->dl_tensor;
  EXPECT_EQ(seen.data, place);
  EXPECT_EQ(seen.device.device_type, kDLCPU);
  EXPECT_EQ(seen.device.device_id, 0);
  EXPECT_EQ(seen.ndim, 2);
  EXPECT_EQ(seen.shape[1], 3);
  EXPECT_EQ(seen.strides[0], 3);
  EXPECT_EQ(seen.strides[1], 1);
  EXPECT_EQ(read_element(seen, {1, 2}), 5.0F);
  EXPECT_EQ(stack->stats().live_blocks.current, 1U);
  free_tensor(tensor);
  EXPECT_EQ(stack->stats().live_blocks.current, 0U);
  EXPECT_EQ(stack->stats().cached.current, 64U);
}

TEST(ToDlpack, IsFreedOnAnyThreadAndAfterTheStackIsClosed) {
  const testing::CaughtReports reports;
  DLManagedTensor* tensor = nullptr;
  {
    const Stack stack = open("retry > cache > host");
    const Extents shape = {1000};
    tensor = to_dlpack(stack.buffer(4000), {.shape = shape});
  }
  EXPECT_EQ(reports.all().size(), 1U);
  static_cast<float*>(tensor->dl_tensor.data)[999] = 1;
  std::thread consumer([&] { free_tensor(tensor); });
  consumer.join();
}

TEST(ToDlpack, StridesAndAnOffsetStayWithinTheBuffer) {
  const Stack stack = open("host");
  const Extents shape = {2, 3};
  const auto fits = [&](const DlpackTensor& tensor, std::size_t bytes = 64) {
    Buffer buffer = stack.buffer(bytes);
    try {
      free_tensor(to_dlpack(std::move(buffer), tensor));
      return true;
    } catch (const std::invalid_argument&) {
      EXPECT_EQ(buffer.bytes(), bytes);  // NOLINT(bugprone-use-after-move): it was not
      return false;
    }
  };
  EXPECT_TRUE(fits({.shape = shape, .byte_offset = 40}));
  EXPECT_FALSE(fits({.shape = shape, .byte_offset = 44}));
  EXPECT_FALSE(fits({.shape = shape, .byte_offset = unbounded}));
  EXPECT_TRUE(fits({.shape = shape}, 24));
  EXPECT_FALSE(fits({.shape = shape}, 23));                           // though its capacity is 64
  EXPECT_TRUE(fits({.shape = shape, .strides = Extents{1, 2}}, 24));  // column by column
  EXPECT_TRUE(fits({.shape = shape, .strides = Extents{0, 0}}, 4));   // one element, many times
  EXPECT_TRUE(fits({.shape = shape, .strides = Extents{13, 1}}));  // the last one ends the buffer
  EXPECT_FALSE(fits({.shape = shape, .strides = Extents{14, 1}}));
  EXPECT_TRUE(fits({.shape = shape, .strides = Extents{-3, -1}, .byte_offset = 20}));
  EXPECT_FALSE(fits({.shape = shape, .strides = Extents{-3, -1}, .byte_offset = 16}));
  EXPECT_FALSE(fits({.shape = shape, .strides = Extents{1}}));
  EXPECT_FALSE(fits({.shape = Extents{2, -3}}));
  EXPECT_FALSE(fits({.shape = Extents{-2, -3}}));
  EXPECT_FALSE(fits({.shape = Extents{0, -3}}));
  testing::expect_nothing_held(*stack);
}

TEST(ToDlpack, SizesThatOverflowAreRefused) {
  const Stack stack = open("host");
  for (const Extents& shape : {Extents{max_extent, 2}, Extents{max_extent},
                               Extents{max_extent / 4 + 1}, Extents{1 << 30, 1 << 30, 1 << 30}}) {
    EXPECT_THROW(static_cast<void>(to_dlpack(stack.buffer(64), {.shape = shape})),
                 std::invalid_argument);
  }
  const Extents shape = {3, 3};
  for (const Extents& strides :
       {Extents{max_extent, 1}, Extents{1, -max_extent}, Extents{max_extent / 2, max_extent / 2},
        Extents{std::numeric_limits<std::int64_t>::min(), 1}}) {
    EXPECT_THROW(
        static_cast<void>(to_dlpack(stack.buffer(64), {.shape = shape, .strides = strides})),
        std::invalid_argument);
  }
  EXPECT_EQ(stack->stats().live_blocks.current, 0U);
}

TEST(ToDlpack, ElementsMayBeOfAnySizeAndNone) {
  const Stack stack = open("host");
  const auto fits = [&](const Extents& shape, DLDataType dtype, std::size_t bytes,
                        std::size_t offset = 0) {
    try {
      free_tensor(
          to_dlpack(stack.buffer(bytes), {.shape = shape, .dtype = dtype, .byte_offset = offset}));
      return true;
    } catch (const std::invalid_argument&) {
      return false;
    }
  };
  EXPECT_TRUE(fits({}, float32, 4));  // a single element
  EXPECT_FALSE(fits({}, float32, 3));
  EXPECT_TRUE(fits({0}, float32, 0));
  EXPECT_TRUE(fits({7, 0, max_extent}, float32, 0));
  EXPECT_TRUE(fits({0}, float32, 8, 8));
  EXPECT_FALSE(fits({0}, float32, 8, 9));
  EXPECT_TRUE(fits({8}, {.code = kDLBfloat, .bits = 16, .lanes = 1}, 16));
  EXPECT_TRUE(fits({8}, {.code = kDLFloat, .bits = 32, .lanes = 4}, 128));
  EXPECT_FALSE(fits({8}, {.code = kDLFloat, .bits = 32, .lanes = 4}, 127));
  EXPECT_TRUE(fits({8}, {.code = kDLUInt, .bits = 4, .lanes = 1}, 8));
  EXPECT_FALSE(fits({8}, {.code = kDLFloat, .bits = 0, .lanes = 1}, 64));
  EXPECT_FALSE(fits({8}, {.code = kDLFloat, .bits = 32, .lanes = 0}, 64));
  EXPECT_FALSE(fits({1}, float32, 64, 2));  // an element is aligned as it is large
  EXPECT_TRUE(fits({1}, {.code = kDLComplex, .bits = 64, .lanes = 1}, 64, 4));
  EXPECT_FALSE(fits({1}, {.code = kDLFloat, .bits = 64, .lanes = 1}, 64, 4));
}

TEST(ToDlpack, TheDeviceIsOneThatDlpackKnows) {
  const Extents shape = {4};
  const Stack simulated = open("simulated");
  Buffer buffer = simulated.buffer(16);
  EXPECT_THROW(static_cast<void>(to_dlpack(std::move(buffer), {.shape = shape})),
               std::invalid_argument);
  EXPECT_FALSE(buffer.empty());  // NOLINT(bugprone-use-after-move): it is as it was
  EXPECT_THROW(static_cast<void>(to_dlpack(Buffer{}, {.shape = Extents{0}})),
               std::invalid_argument);
  const Ref<Resource> pmr = make<PmrDevice>(std::pmr::get_default_resource());
  free_tensor(to_dlpack(Buffer(*pmr, 16), {.shape = shape}));
  DeviceLimits limits;
  for (const auto& [kind, type] : std::vector<std::pair<const char*, DLDeviceType>>{
           {"host", kDLCPU}, {"cuda", kDLCUDA}, {"opencl", kDLOpenCL}}) {
    limits.kind = kind;
    limits.memory_is_address = type != kDLOpenCL;
    EXPECT_EQ(dlpack::device_type(limits), type);
  }
  // Addresses of OpenCL's: DLPack has no word for them, but the CPU may.
  limits.kind = "opencl";
  limits.memory_is_address = true;
  EXPECT_THROW(static_cast<void>(dlpack::device_type(limits)), std::invalid_argument);
  limits.host_addressable = true;
  EXPECT_EQ(dlpack::device_type(limits), kDLCPU);
}

TEST(ToDlpack, MemoryOfCudasKnowsItsKindAndItsGpu) {
  const testing::FakeCuda machine({.gpus = 2});
  const Extents shape = {4};
  for (const auto& [text, type] : std::vector<std::pair<const char*, DLDeviceType>>{
           {"cuda(device=1)", kDLCUDA},
           {"cache > cuda(device=1, memory=async)", kDLCUDA},
           {"coalesce > cuda(device=1, memory=managed)", kDLCUDAManaged},
           {"cuda(device=1, memory=pinned)", kDLCUDAHost}}) {
    const Stack stack = open(text);
    DLManagedTensor* const tensor = to_dlpack(stack.buffer(16), {.shape = shape});
    EXPECT_EQ(tensor->dl_tensor.device.device_type, type) << text;
    EXPECT_EQ(tensor->dl_tensor.device.device_id, 1) << text;
    free_tensor(tensor);
  }
}

TEST(ToDlpack, AHostWithoutMemoryLeavesTheBufferAsItWas) {
  const Stack stack = open("host");
  const Extents shape = {2, 2};
  bool has_failed = true;
  for (int n = 1; has_failed; ++n) {
    Buffer buffer = stack.buffer(16);
    DLManagedTensor* tensor = nullptr;
    try {
      const testing::FailingNew failing(n);
      tensor = to_dlpack(std::move(buffer), {.shape = shape});
    } catch (const std::bad_alloc&) {
    }
    has_failed = tensor == nullptr;
    EXPECT_EQ(buffer.empty(), !has_failed);  // NOLINT(bugprone-use-after-move)
    if (tensor != nullptr) free_tensor(tensor);
  }
  EXPECT_EQ(stack->stats().live_blocks.current, 0U);
}

// --- the way back ---

/// A tensor of a library that leaves its strides out and counts the calls of its deleter.
struct Foreign {
  std::array<float, 8> values{0, 1, 2, 3, 4, 5, 6, 7};
  Extents shape;
  Extents strides;
  int deleted = 0;
  DLManagedTensor managed{};

  explicit Foreign(Extents its_shape, Extents its_strides = {})
      : shape(std::move(its_shape)), strides(std::move(its_strides)) {
    managed.dl_tensor = {.data = values.data(),
                         .device = {.device_type = kDLCPU, .device_id = 0},
                         .ndim = static_cast<int>(shape.size()),
                         .dtype = float32,
                         .shape = shape.data(),
                         .strides = strides.empty() ? nullptr : strides.data(),
                         .byte_offset = 0};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensor* self) {
      ++static_cast<Foreign*>(self->manager_ctx)->deleted;
    };
  }
};

TEST(FromDlpack, UsesTheMemoryWhereItLiesAndCallsTheDeleterOnce) {
  Foreign foreign({2, 3});
  foreign.managed.dl_tensor.byte_offset = 8;
  {
    ImportedTensor tensor = from_dlpack(&foreign.managed);
    EXPECT_EQ(tensor.data(), &foreign.values[2]);
    EXPECT_EQ(tensor.bytes(), 24U);
    EXPECT_EQ(tensor.byte_offset(), 8U);
    EXPECT_EQ(Extents(tensor.shape().begin(), tensor.shape().end()), (Extents{2, 3}));
    EXPECT_EQ(Extents(tensor.strides().begin(), tensor.strides().end()), (Extents{3, 1}));
    EXPECT_EQ(tensor.dtype().bits, 32);
    EXPECT_EQ(tensor.device().device_type, kDLCPU);
    EXPECT_TRUE(tensor.is_compact());
    const ImportedTensor moved = std::move(tensor);
    EXPECT_TRUE(tensor.empty());  // NOLINT(bugprone-use-after-move): that is the test
    EXPECT_EQ(foreign.deleted, 0);
  }
  EXPECT_EQ(foreign.deleted, 1);
}

TEST(FromDlpack, KnowsWhatLiesRowByRow) {
  const auto is_compact = [](Extents shape, Extents strides) {
    Foreign foreign(std::move(shape), std::move(strides));
    return from_dlpack(&foreign.managed).is_compact();
  };
  EXPECT_TRUE(is_compact({2, 3}, {3, 1}));
  EXPECT_FALSE(is_compact({2, 3}, {1, 2}));
  EXPECT_FALSE(is_compact({2, 3}, {4, 1}));
  EXPECT_FALSE(is_compact({3}, {-1}));
  EXPECT_TRUE(is_compact({1, 3}, {77, 1}));  // a stride that nothing takes
  EXPECT_TRUE(is_compact({2, 0}, {5, 5}));
  EXPECT_TRUE(is_compact({}, {}));
}

TEST(FromDlpack, LeavesWhatMakesNoSenseToTheCaller) {
  EXPECT_THROW(static_cast<void>(from_dlpack(nullptr)), std::invalid_argument);
  const auto refused = [](void (*spoil)(DLTensor&)) {
    Foreign foreign({2, 3}, {3, 1});
    spoil(foreign.managed.dl_tensor);
    EXPECT_THROW(static_cast<void>(from_dlpack(&foreign.managed)), std::invalid_argument);
    EXPECT_EQ(foreign.deleted, 0);
  };
  refused([](DLTensor& tensor) { tensor.ndim = -1; });
  refused([](DLTensor& tensor) { tensor.shape = nullptr; });
  refused([](DLTensor& tensor) { tensor.shape[0] = -1; });
  refused([](DLTensor& tensor) { tensor.shape[0] = max_extent; });
  refused([](DLTensor& tensor) { tensor.strides[0] = max_extent, tensor.shape[0] = 3; });
  refused([](DLTensor& tensor) { tensor.dtype.lanes = 0; });
  refused([](DLTensor& tensor) { tensor.dtype.bits = 0; });
  refused([](DLTensor& tensor) { tensor.data = nullptr; });
}

TEST(FromDlpack, AnEmptyTensorAndOneWithoutADeleterAreRight) {
  Foreign foreign({0, 3});
  foreign.managed.dl_tensor.data = nullptr;
  foreign.managed.deleter = nullptr;
  ImportedTensor tensor = from_dlpack(&foreign.managed);
  EXPECT_EQ(tensor.bytes(), 0U);
  EXPECT_EQ(tensor.data(), nullptr);
  tensor.reset();
  EXPECT_TRUE(tensor.empty());
  EXPECT_TRUE(ImportedTensor().empty());
}

TEST(Dlpack, ATensorComesBackAsItWent) {
  const Stack stack = open("host");
  const Extents shape = {3, 5};
  {
    Buffer buffer = stack.buffer(60);
    void* const place = buffer.data();
    const ImportedTensor tensor =
        from_dlpack(to_dlpack(std::move(buffer), {.shape = shape, .byte_offset = 0}));
    EXPECT_EQ(tensor.data(), place);
    EXPECT_EQ(tensor.bytes(), 60U);
    EXPECT_TRUE(tensor.is_compact());
    EXPECT_EQ(stack->stats().live_blocks.current, 1U);
  }
  testing::expect_nothing_held(*stack);
}

}  // namespace
}  // namespace cistern
