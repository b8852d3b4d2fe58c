// The devices that tests of arenas run on: memory that can be written, simulated memory, and
// memory that is no address but an object with offsets.
#pragma once

#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/arena.hpp"

namespace cistern::testing {

/// Memory that is told by objects and offsets. (Its objects are far apart, so that offsets may be
/// added to them as if they were addresses.)
class ObjectDevice final : public Device {
 public:
  ObjectDevice()
      : Device({.kind = "objects",
                .name = {},
                .max_allocation = std::size_t{1} << 40U,
                .alignment = 256,
                .max_alignment = 4096,
                .granularity = 64,
                .memory_is_address = false}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment,
                         Stream /*stream*/) noexcept override {
    next_ += std::uintptr_t{1} << 41U;
    return Piece{.memory = reinterpret_cast<void*>(next_), .bytes = bytes, .alignment = alignment};
  }
  void give_back(Piece /*piece*/, Stream /*stream*/) noexcept override {}

  std::uintptr_t next_ = 0;
};

enum class ArenaDevice { host, simulated, objects };

inline Ref<Resource> make_device(ArenaDevice kind) {
  if (kind == ArenaDevice::host) return make<HostDevice>();
  if (kind == ArenaDevice::objects) return make<ObjectDevice>();
  return make<SimulatedDevice>(SimulatedDevice::Options{.capacity = std::size_t{64} << 30U});
}

class EveryArena : public ::testing::TestWithParam<ArenaDevice> {
 protected:
  [[nodiscard]] static Ref<Arena> make_arena(const Arena::Options& options = {}) {
    return make<Arena>(make_device(GetParam()), options);
  }
  /// What sizes of its blocks are multiples of.
  [[nodiscard]] static std::size_t granule(const Arena& arena) {
    const DeviceLimits& limits = arena.device().limits();
    return std::max(limits.alignment, limits.granularity);
  }
};

inline std::string name_of_device(const ::testing::TestParamInfo<ArenaDevice>& info) {
  if (info.param == ArenaDevice::host) return "host";
  return info.param == ArenaDevice::simulated ? "simulated" : "objects";
}

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): GoogleTest's own way
#define CISTERN_INSTANTIATE_EVERY_ARENA(Suite)                                         \
  INSTANTIATE_TEST_SUITE_P(All, Suite,                                                 \
                           ::testing::Values(cistern::testing::ArenaDevice::host,      \
                                             cistern::testing::ArenaDevice::simulated, \
                                             cistern::testing::ArenaDevice::objects),  \
                           cistern::testing::name_of_device)

template <class Work>
void on_another_thread(Work work) {
  std::thread(work).join();
}

}  // namespace cistern::testing
