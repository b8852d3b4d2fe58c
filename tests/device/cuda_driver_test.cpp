// The CUDA driver's library, where it is installed: it needs no GPU to say what it has.
#include <cstdint>
#include <string>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "device/cuda_api.hpp"

namespace cistern {
namespace {

class CudaDriver : public ::testing::Test {
 protected:
  void SetUp() override {
    if (library_ == nullptr) GTEST_SKIP() << "libcuda.so.1 is not installed";
  }

  void* const library_ = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
};

TEST_F(CudaDriver, HasTheEntryPointsThatAreAskedFor) {
  std::string why;
  EXPECT_NE(CudaApi::system(why), nullptr) << why;
}

TEST_F(CudaDriver, NamesErrorsAlike) {
  using NameOf = CudaResult(CudaResult, const char**);
  auto* const name_of = reinterpret_cast<NameOf*>(dlsym(library_, "cuGetErrorName"));
  ASSERT_NE(name_of, nullptr);
  const std::string unknown = cuda_name(static_cast<CudaResult>(12345));
  int compared = 0;
  for (std::uint32_t code = 0; code < 1000; ++code) {
    const char* name = nullptr;
    const std::string ours = cuda_name(static_cast<CudaResult>(code));
    if (name_of(static_cast<CudaResult>(code), &name) != CudaResult::success || ours == unknown)
      continue;
    EXPECT_EQ(ours, name) << code;
    ++compared;
  }
  EXPECT_GT(compared, 80);
}

}  // namespace
}  // namespace cistern
