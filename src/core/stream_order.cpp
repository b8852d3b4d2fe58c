#include "cistern/core/stream_order.hpp"

namespace cistern {

Expected<void> StreamOrder::wait(Stream waiter, Stream on) noexcept {
  Expected<void> waits = do_wait(waiter, on);
  return waits ? waits : do_synchronize(on);
}

}  // namespace cistern
