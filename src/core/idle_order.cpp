#include "cistern/core/idle_order.hpp"

#include <algorithm>
#include <optional>

namespace cistern {

void IdleOrder::note_free(Stream stream) noexcept {
  if (order_ == nullptr || std::ranges::find(freed_on(), stream) != freed_on().end()) return;
  if (size_ == freed_on_.size()) static_cast<void>(gather());
  if (size_ < freed_on_.size()) {
    freed_on_[size_++] = stream;
  } else {
    join_with_first(size_, stream);
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
  std::size_t apart = std::min<std::size_t>(size_, 1);
  for (std::size_t i = apart; i < size_; ++i) {
    if (!join_with_first(apart, freed_on_[i])) freed_on_[apart++] = freed_on_[i];
  }
  size_ = apart;
  return freed_on_.front();
}

bool IdleOrder::join_with_first(std::size_t number, Stream stream) noexcept {
  for (Stream& last : std::span(freed_on_).first(number)) {
    if (const std::optional<Stream> both = join(order_, last, stream)) {
      last = *both;
      return true;
    }
  }
  return false;
}

}  // namespace cistern
