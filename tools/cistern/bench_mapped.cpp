#include "bench_mapped.hpp"

#include <fstream>
#include <string>

#include "cistern/core/size.hpp"

namespace cistern::command {
namespace {

using namespace cistern::literals;

/// A line of /proc/self/status, such as "VmSize:    1234 kB", in bytes.
std::optional<std::size_t> bytes_in_status(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::size_t kilobytes = 0;
    if (word == key && status >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
}

struct MappedBefore {
  std::optional<std::size_t> mapped;
  std::size_t idle = 0;
};

/// What the first call finds.
const MappedBefore& mapped_before(std::size_t idle = 0) {
  static const MappedBefore before{.mapped = bytes_in_status("VmSize:"), .idle = idle};
  return before;
}

}  // namespace

MappedGrowth::MappedGrowth(std::size_t idle_before) {
  mapped_before(idle_before);
}

std::optional<std::size_t> MappedGrowth::peak() {
  const MappedBefore& before = mapped_before();
  const std::optional<std::size_t> peak = bytes_in_status("VmPeak:");
  if (!before.mapped || !peak || *peak < *before.mapped + 16_MiB) return std::nullopt;
  return *peak - *before.mapped + before.idle;
}

}  // namespace cistern::command
