// PyTorch snapshots built by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trace/samples.hpp"

namespace cistern::samples {

inline std::string event(std::string_view action, std::uint64_t address, std::uint64_t size,
                         std::uint64_t time_us, std::uint64_t stream = 0) {
  return Pickle::dictionary({{"action", Pickle::text(action)},
                             {"addr", Pickle::number(address)},
                             {"size", Pickle::number(size)},
                             {"stream", Pickle::number(stream)},
                             {"time_us", Pickle::number(time_us)},
                             {"frames", "]"}});
}

inline std::string block(std::uint64_t address, std::uint64_t size, std::uint64_t requested,
                         std::string_view state) {
  return Pickle::dictionary({{"address", Pickle::number(address)},
                             {"size", Pickle::number(size)},
                             {"requested_size", Pickle::number(requested)},
                             {"state", Pickle::text(state)}});
}

inline std::string segment(std::uint64_t address, const std::vector<std::string>& blocks,
                           std::uint64_t device = 0, std::uint64_t stream = 0) {
  return Pickle::dictionary({{"device", Pickle::number(device)},
                             {"address", Pickle::number(address)},
                             {"stream", Pickle::number(stream)},
                             {"blocks", Pickle::list(blocks)}});
}

inline std::string snapshot(const std::vector<std::string>& segments,
                            const std::vector<std::vector<std::string>>& traces) {
  std::vector<std::string> lists;
  for (const auto& events : traces)
    lists.push_back(Pickle::list(events));
  return Pickle::file(Pickle::dictionary(
      {{"segments", Pickle::list(segments)}, {"device_traces", Pickle::list(lists)}}));
}

/// A segment with all that a layout is made of.
inline std::string whole_segment(std::uint64_t address, std::uint64_t size, std::string_view type,
                                 const std::vector<std::string>& blocks, std::uint64_t stream = 0) {
  return Pickle::dictionary({{"device", Pickle::number(0)},
                             {"address", Pickle::number(address)},
                             {"total_size", Pickle::number(size)},
                             {"stream", Pickle::number(stream)},
                             {"segment_type", Pickle::text(type)},
                             {"is_expandable", "\x89"},
                             {"blocks", Pickle::list(blocks)}});
}

}  // namespace cistern::samples
