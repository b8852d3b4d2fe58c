// The library that PyTorch loads, loaded as PyTorch does: by its path, with two functions by their
// names. Each test asks for another GPU, since the library opens one stack for each.
#include "cistern/c/torch.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/core/size.hpp"
#include "cistern/trace/read.hpp"
#include "support/environment.hpp"

namespace cistern {
namespace {

using namespace literals;

class LoadedTorch : public ::testing::Test {
 protected:
  void SetUp() override {
    void* const library = dlopen(CISTERN_TORCH, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    const auto find = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      ASSERT_NE(function, nullptr) << name;
    };
    find(malloc_, "cistern_torch_malloc");
    find(try_malloc_, "cistern_torch_try_malloc");
    find(free_, "cistern_torch_free");
    find(record_stream_, "cistern_torch_record_stream");
    find(empty_cache_, "cistern_torch_empty_cache");
    find(peaks_, "cistern_torch_peaks");
  }

  decltype(&cistern_torch_malloc) malloc_ = nullptr;
  decltype(&cistern_torch_try_malloc) try_malloc_ = nullptr;
  decltype(&cistern_torch_free) free_ = nullptr;
  decltype(&cistern_torch_record_stream) record_stream_ = nullptr;
  decltype(&cistern_torch_empty_cache) empty_cache_ = nullptr;
  decltype(&cistern_torch_peaks) peaks_ = nullptr;
};

TEST_F(LoadedTorch, GivesMemoryAndTakesItBack) {
  const testing::Environment environment("CISTERN_STACK", "cache > host");
  void* const tensor = malloc_(1_MiB, 1, nullptr);
  std::memset(tensor, 7, 1_MiB);
  record_stream_(tensor, nullptr);
  free_(tensor, 1_MiB, 1, nullptr);
  EXPECT_EQ(malloc_(1_MiB, 1, nullptr), tensor) << "it was kept";
  free_(tensor, 1_MiB, 1, nullptr);
  EXPECT_EQ(malloc_(0, 1, nullptr), nullptr);
  free_(nullptr, 0, 1, nullptr);
  empty_cache_();
  std::size_t live = 0;
  std::size_t reserved = 0;
  peaks_(1, &live, &reserved);
  EXPECT_EQ(live, 1_MiB);
  EXPECT_GE(reserved, 1_MiB);
  peaks_(1, nullptr, nullptr);
  peaks_(2, &live, nullptr);
  EXPECT_EQ(live, 0U);
}

TEST_F(LoadedTorch, ThrowsWhatStandsInTheWay) {
  const testing::Environment environment("CISTERN_STACK", "cache > limit(1MiB) > host");
  void* const tensor = malloc_(100_KiB, 3, nullptr);
  try {
    malloc_(2_MiB, 3, nullptr);
    FAIL();
  } catch (const std::bad_alloc& error) {
    EXPECT_NE(std::string(error.what()).find("limit refused"), std::string::npos) << error.what();
  }
  EXPECT_THROW(malloc_(unbounded, 3, nullptr), std::bad_alloc);
  free_(tensor, 100_KiB, 3, nullptr);
}

TEST_F(LoadedTorch, AnswersNullWhereThatIsAskedFor) {
  const testing::Environment environment("CISTERN_STACK", "limit(1MiB) > cache > host");
  void* const tensor = try_malloc_(1_MiB, 8, nullptr);
  ASSERT_NE(tensor, nullptr);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(try_malloc_(1, 8, nullptr), nullptr);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("CUDA out of memory. limit refused 1 byte"), std::string::npos) << said;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(try_malloc_(1, -1, nullptr), nullptr);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "cistern: there is no GPU -1, their numbers are at most 63\n");
  free_(tensor, 1_MiB, 8, nullptr);
}

TEST_F(LoadedTorch, AWrongStackIsNamedAndMendedWithoutLoadingAgain) {
  try {
    const testing::Environment environment("CISTERN_STACK", "cahce > host");
    malloc_(1, 4, nullptr);
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_TRUE(
        std::string(error.what())
            .starts_with("in the environment variable CISTERN_STACK: there is no stage 'cahce'"))
        << error.what();
  }
  EXPECT_THROW(malloc_(1, -1, nullptr), std::invalid_argument);
  const testing::Environment environment("CISTERN_STACK", "cache > host");
  free_(malloc_(1, 4, nullptr), 1, 4, nullptr);
}

TEST_F(LoadedTorch, AFreeThatIsWrongIsSaidOnStandardError) {
  const testing::Environment environment("CISTERN_STACK", "cache > host");
  void* const tensor = malloc_(1_KiB, 5, nullptr);
  free_(tensor, 1_KiB, 5, nullptr);
  ::testing::internal::CaptureStderr();
  free_(tensor, 1_KiB, 5, nullptr);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("cistern: refused to free"), std::string::npos) << said;
}

TEST_F(LoadedTorch, ARecordingIsWholeWhenTheProcessEnds) {
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / ("torch_recording." + std::to_string(getpid()));
  EXPECT_EXIT(
      {
        const testing::Environment environment(
            "CISTERN_STACK", ("trace(\"" + file.string() + "\") > cache > host").c_str());
        for (int i = 0; i < 10; ++i)
          free_(malloc_(1_KiB, 6, nullptr), 1_KiB, 6, nullptr);
        std::exit(0);
      },
      ::testing::ExitedWithCode(0), "");
  const auto recorded = read_trace(file);
  ASSERT_TRUE(recorded) << recorded.error().text();
  EXPECT_GE(recorded->events.size(), 20U);
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace cistern
