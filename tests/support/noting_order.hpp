// A `StreamOrder` that notes what it is asked for, and fails when it is told to.
#pragma once

#include <utility>
#include <vector>

#include "cistern/core/stream_order.hpp"

namespace cistern::testing {

class NotingOrder final : public StreamOrder {
 public:
  std::vector<std::pair<std::uint64_t, std::uint64_t>> waits;  // who, for whom
  std::vector<std::uint64_t> synchronised;
  bool can_wait = true;
  bool can_synchronise = true;

 private:
  static Expected<void> answer(bool is_well) {
    if (is_well) return {};
    return tl::unexpected(Error{.code = Errc::device_failed, .stage = "noting"});
  }
  Expected<void> do_wait(Stream waiter, Stream on) noexcept override {
    if (can_wait) waits.emplace_back(waiter.id, on.id);
    return answer(can_wait);
  }
  Expected<void> do_synchronize(Stream stream) noexcept override {
    if (can_synchronise) synchronised.push_back(stream.id);
    return answer(can_synchronise);
  }
  void do_retire(Stream /*stream*/) noexcept override {}
};

}  // namespace cistern::testing
