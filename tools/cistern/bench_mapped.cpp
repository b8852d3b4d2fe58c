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

std::optional<std::size_t> mapped_before() {
  static const std::optional<std::size_t> before = bytes_in_status("VmSize:");
  return before;
}

}  // namespace

MappedGrowth::MappedGrowth() {
  mapped_before();
}

std::optional<std::size_t> MappedGrowth::peak() {
  const std::optional<std::size_t> before = mapped_before();
  const std::optional<std::size_t> peak = bytes_in_status("VmPeak:");
  if (!before || !peak || *peak < *before + 16_MiB) return std::nullopt;
  return *peak - *before;
}

}  // namespace cistern::command
