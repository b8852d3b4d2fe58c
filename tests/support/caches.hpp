// The caches that tests of every cache run on: each bucket policy, on memory that can be written
// and on simulated memory.
#pragma once

#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"

namespace cistern::testing {

struct NamedPolicy {
  const char* name;
  BucketPolicy policy;
};

inline const NamedPolicy bucket_policies[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"pow2", Geometric{1}},
    {"geometric8", Geometric{8}},
    {"geometric64", Geometric{64}},
    {"table", quadrupling_table()},
    {"fit", Fit{}}};

enum class DeviceKind { host, simulated };

inline Ref<Resource> make_device(DeviceKind kind) {
  if (kind == DeviceKind::host) return make<HostDevice>();
  return make<SimulatedDevice>(SimulatedDevice::Options{.capacity = std::size_t{64} << 30});
}

class EveryCache : public ::testing::TestWithParam<std::tuple<NamedPolicy, DeviceKind>> {
 protected:
  /// The parameters' policy and device; the other options as given.
  [[nodiscard]] static Ref<Cache> make_cache(Cache::Options options) {
    options.buckets = std::get<0>(GetParam()).policy;
    return make<Cache>(make_device(std::get<1>(GetParam())), options);
  }
  [[nodiscard]] static Ref<Cache> make_cache() { return make_cache(Cache::Options{}); }
  /// Without any bound, so that what happens depends on the requests alone.
  [[nodiscard]] static Ref<Cache> make_unbounded_cache() {
    return make_cache(Cache::Options{.idle_ratio = Cache::no_ratio});
  }
  [[nodiscard]] static bool is_fit() {
    return std::holds_alternative<Fit>(std::get<0>(GetParam()).policy);
  }
};

inline std::string name_of(
    const ::testing::TestParamInfo<std::tuple<NamedPolicy, DeviceKind>>& info) {
  return std::string(std::get<0>(info.param).name) +
         (std::get<1>(info.param) == DeviceKind::host ? "_host" : "_simulated");
}

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): GoogleTest's own way
#define CISTERN_INSTANTIATE_EVERY_CACHE(Suite)                                        \
  INSTANTIATE_TEST_SUITE_P(                                                           \
      All, Suite,                                                                     \
      ::testing::Combine(::testing::ValuesIn(cistern::testing::bucket_policies),      \
                         ::testing::Values(cistern::testing::DeviceKind::host,        \
                                           cistern::testing::DeviceKind::simulated)), \
      cistern::testing::name_of)

}  // namespace cistern::testing
