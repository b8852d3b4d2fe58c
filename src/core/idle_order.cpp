#include "cistern/core/idle_order.hpp"

#include <algorithm>

namespace cistern {

void IdleOrder::note_free(Stream stream) noexcept {
  if (order_ == nullptr || std::ranges::find(freed_on(), stream) != freed_on().end()) return;
  if (size_ == freed_on_.size()) static_cast<void>(gather());
  if (size_ < freed_on_.size()) {
    freed_on_[size_++] = stream;
  } else {
    static_cast<void>(order_->wait(freed_on_.front(), stream));
  }
}

Expected<void> IdleOrder::make_ready(Stream stream) noexcept {
  if (order_ == nullptr) return {};
  for (const Stream& last : freed_on()) {
    if (!StreamOrder::needs_wait(last, stream)) continue;
    if (Expected<void> waits = order_->wait(stream, last); !waits) return waits;
  }
  freed_on_.front() = stream;
  size_ = 1;
  return {};
}

// Those that cannot be joined stay, each for itself.
Stream IdleOrder::gather() noexcept {
  std::size_t joined = 1;
  for (std::size_t i = 1; i < size_; ++i) {
    if (const auto both = join(order_, freed_on_.front(), freed_on_[i])) {
      freed_on_.front() = *both;
    } else {
      freed_on_[joined++] = freed_on_[i];
    }
  }
  size_ = std::min(size_, joined);
  return freed_on_.front();
}

}  // namespace cistern
