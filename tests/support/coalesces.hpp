// The coalescing pools that tests of every such pool run on: its policies, on each kind of device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/device.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/coalesce.hpp"

namespace cistern::testing {

struct NamedOptions {
  const char* name;
  Coalesce::Options options;
};

inline const std::vector<NamedOptions>& coalesce_policies() {
  static const std::vector<NamedOptions> policies = {
      {"default", {}},
      {"best", {.place = Placement::best}},
      {"first", {.place = Placement::first}},
      {"one_class", {.classes = {{}}, .idle_ratio = Coalesce::no_ratio}},
      {"small_regions",
       {.classes = {{.up_to = 4096, .region = 16384, .region_for = 8192, .least_rest = 512},
                    {.region = 65536, .region_for = 32768, .least_rest = 4096}},
        .granule = 512}},
      {"doubling", {.classes = {{}}, .growth = Growth::doubling}},
      {"fixed", {.classes = {{.region = 65536}}, .growth = Growth::fixed}},
      {"separate", {.streams = StreamSharing::separate, .borrow = false}},
      {"bounded", {.max_idle = 65536}}};
  return policies;
}

// NOLINTNEXTLINE(readability-identifier-naming): GoogleTest looks for this name
inline void PrintTo(const NamedOptions& options, std::ostream* out) {
  *out << options.name;
}

/// Whose streams wait for each other, and whose pieces stand one behind the other and may be
/// joined.
class QueueDevice final : public Device {
 public:
  QueueDevice()
      : Device({.kind = "queues",
                .name = "",
                .total_memory = std::size_t{16} << 30,
                .max_allocation = std::size_t{16} << 30,
                .alignment = 512,
                .max_alignment = std::size_t{1} << 30,
                .granularity = 512,
                .joins_adjacent = true,
                .has_queues = true}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment,
                         Stream /*stream*/) noexcept override {
    const std::lock_guard lock(mutex_);
    const std::uintptr_t start = (next_ + alignment - 1) / alignment * alignment;
    next_ = start + bytes;
    return Piece{.memory = reinterpret_cast<void*>(start),  // NOLINT(performance-no-int-to-ptr)
                 .bytes = bytes,
                 .alignment = alignment};
  }
  void give_back(Piece /*piece*/, Stream /*stream*/) noexcept override {}

  std::mutex mutex_;
  std::uintptr_t next_ = std::uintptr_t{1} << 40;
};

struct NamedDevice {
  const char* name;
  Ref<Resource> (*make)();
};
// NOLINTNEXTLINE(readability-identifier-naming): GoogleTest looks for this name
inline void PrintTo(const NamedDevice& device, std::ostream* out) {
  *out << device.name;
}

inline const NamedDevice coalesce_devices[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"host", [] { return Ref<Resource>(make<HostDevice>()); }},
    {"simulated", [] { return Ref<Resource>(make<SimulatedDevice>()); }},
    {"extensible",
     [] {
       return Ref<Resource>(make<SimulatedDevice>(SimulatedDevice::Options{.extensible = true}));
     }},
    {"joining",
     [] {
       return Ref<Resource>(
           make<SimulatedDevice>(SimulatedDevice::Options{.joins_adjacent = true}));
     }},
    {"queues", [] { return Ref<Resource>(make<QueueDevice>()); }}};

class EveryCoalesce : public ::testing::TestWithParam<std::tuple<NamedOptions, NamedDevice>> {
 protected:
  [[nodiscard]] static Coalesce::Options options() { return std::get<0>(GetParam()).options; }
  [[nodiscard]] static Ref<Resource> make_device() { return std::get<1>(GetParam()).make(); }
  [[nodiscard]] static Ref<Coalesce> make_pool() {
    return make<Coalesce>(make_device(), options());
  }
};

inline std::string name_of_coalesce(
    const ::testing::TestParamInfo<std::tuple<NamedOptions, NamedDevice>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
}

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): GoogleTest's own way
#define CISTERN_INSTANTIATE_EVERY_COALESCE(Suite)                                    \
  INSTANTIATE_TEST_SUITE_P(                                                          \
      All, Suite,                                                                    \
      ::testing::Combine(::testing::ValuesIn(cistern::testing::coalesce_policies()), \
                         ::testing::ValuesIn(cistern::testing::coalesce_devices)),   \
      cistern::testing::name_of_coalesce)

}  // namespace cistern::testing
