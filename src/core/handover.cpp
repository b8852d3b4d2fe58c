#include "cistern/core/handover.hpp"

#include <algorithm>
#include <new>

namespace cistern {

bool Handover::add_use(const Node& block, Stream stream) noexcept try {
  if (order_ == nullptr) return true;
  const auto is_known = [&](const Use& use) {
    return use.block == &block && use.stream.id == stream.id;
  };
  if (std::ranges::none_of(uses_, is_known)) uses_.push_back({.block = &block, .stream = stream});
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace cistern
