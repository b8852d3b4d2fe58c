// A test on a machine with GPUs that are not there: when it ends, everything that the library got
// from the driver has been given back, and no rule of the driver's was broken.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/transfer.hpp"
#include "cistern/device/cuda.hpp"
#include "support/fake_cuda.hpp"

namespace cistern::testing {

class OnFakeCuda : public ::testing::Test {
 protected:
  void SetUp() override { fake_ = std::make_unique<FakeCuda>(); }
  void TearDown() override {
    if (fake_ == nullptr) return;
    EXPECT_EQ(fake_->leaks(), "");
    EXPECT_EQ(fake_->misuses(), std::vector<std::string>());
    EXPECT_EQ(fake_->current(), nullptr) << "what was current on this thread still is";
  }

  /// Another machine than the usual one.
  void on(const FakeCuda::Machine& machine) {
    fake_.reset();
    fake_ = std::make_unique<FakeCuda>(machine);
  }
  [[nodiscard]] FakeCuda& fake() const { return *fake_; }
  [[nodiscard]] Ref<CudaDevice> device(CudaDevice::Options options = {}) const {
    return make<CudaDevice>(fake_->api(), options);
  }
  [[nodiscard]] Ref<CudaDevice> device(CudaDevice::Memory memory) const {
    return device(CudaDevice::Options{.memory = memory});
  }

  static bool write(CudaDevice& device, const Block& block, char value, Stream stream = {}) {
    return device.transfer()->fill(block, 0, block.bytes, std::byte(value), stream).has_value();
  }
  static bool holds(CudaDevice& device, const Block& block, char value, Stream stream = {}) {
    std::vector<std::byte> bytes(block.bytes);
    return device.transfer()->download(bytes, block, 0, stream) &&
           bytes == std::vector<std::byte>(block.bytes, std::byte(value));
  }

 private:
  std::unique_ptr<FakeCuda> fake_;
};

/// In the name of a test.
inline std::string name_of(CudaDevice::Memory memory) {
  switch (memory) {
    case CudaDevice::Memory::device:
      return "device";
    case CudaDevice::Memory::managed:
      return "managed";
    case CudaDevice::Memory::pinned:
      return "pinned";
    case CudaDevice::Memory::async:
      return "async";
  }
  return {};
}

}  // namespace cistern::testing
