// How much memory a malloc has asked the system for. It does not say so itself, and each counts
// otherwise, so one rule goes for all: by how much the addresses that are mapped in the process
// have grown, at their peak. The kernel keeps that peak, so nothing is sampled while time is taken.
#pragma once

#include <cstddef>
#include <optional>

namespace cistern::command {

/// Counts from the first that is made in a process.
class MappedGrowth {
 public:
  /// `idle_before`: bytes that the malloc holds already and will hand out before it asks for more,
  /// which count, too.
  explicit MappedGrowth(std::size_t idle_before = 0);

  /// Nothing where the system does not tell, or where it is less than 16 MiB: then what a heap had
  /// before and what the workload itself allocates weigh too much.
  [[nodiscard]] static std::optional<std::size_t> peak();
};

}  // namespace cistern::command
