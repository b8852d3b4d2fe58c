#include "cistern/core/idle_order.hpp"

#include <algorithm>

namespace cistern {

void IdleOrder::note_free(Stream stream) noexcept {
  if (order_ == nullptr || std::ranges::find(freed_on(), stream) != freed_on().end()) return;
  if (size_ < freed_on_.size()) {
    freed_on_[size_++] = stream;
  } else {
    static_cast<void>(order_->wait(freed_on_.front(), stream));
  }
}

bool IdleOrder::make_ready(Stream stream) noexcept {
  for (const Stream& last : freed_on()) {
    if (!cistern::make_ready(order_, last, stream)) return false;
  }
  freed_on_.front() = stream;
  size_ = 1;
  return true;
}

Stream IdleOrder::gather() noexcept {
  for (; size_ > 1; --size_)
    static_cast<void>(order_->wait(freed_on_.front(), freed_on_[size_ - 1]));
  return freed_on_.front();
}

}  // namespace cistern
