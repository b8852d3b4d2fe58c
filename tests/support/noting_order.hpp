// A `StreamOrder` that notes what it is asked for, and fails when it is told to.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "cistern/core/stream_order.hpp"

namespace cistern::testing {

class NotingOrder final : public StreamOrder {
 public:
  std::vector<std::pair<std::uint64_t, std::uint64_t>> waits;  // who, for whom
  std::vector<std::uint64_t> synchronised;
  std::map<std::uint64_t, int> graphs;  // into which streams are captured
  bool can_wait = true;
  bool can_synchronise = true;

 private:
  static Expected<void> answer(bool is_well) {
    if (is_well) return {};
    return tl::unexpected(Error{.code = Errc::device_failed, .stage = "noting"});
  }
  [[nodiscard]] int graph_of(Stream stream) const {
    const auto found = graphs.find(stream.id);
    return found != graphs.end() ? found->second : 0;
  }
  Expected<void> do_wait(Stream waiter, Stream on) noexcept override {
    const bool is_well = can_wait && graph_of(waiter) == graph_of(on);
    if (is_well) waits.emplace_back(waiter.id, on.id);
    return answer(is_well);
  }
  Expected<void> do_synchronize(Stream stream) noexcept override {
    const bool is_well = can_synchronise && graph_of(stream) == 0;
    if (is_well) synchronised.push_back(stream.id);
    return answer(is_well);
  }
  void do_retire(Stream /*stream*/) noexcept override {}
};

}  // namespace cistern::testing
