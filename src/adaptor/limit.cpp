#include "cistern/adaptor/limit.hpp"

#include "cistern/core/size.hpp"

namespace cistern {

Limit::Limit(Ref<Resource> upstream, std::size_t max_bytes)
    : Stage(std::move(upstream)), max_bytes_(max_bytes) {}

// A request that does not fit charges nothing, so it cannot crowd out one that does.
bool Limit::charge(std::size_t bytes) noexcept {
  std::size_t charged = charged_.load(std::memory_order_relaxed);
  do {
    if (bytes > saturating_subtract(max_bytes(), charged)) return false;
  } while (!charged_.compare_exchange_weak(charged, charged + bytes, std::memory_order_relaxed));
  return true;
}

Expected<Block> Limit::try_allocate(Request request) noexcept {
  if (request.bytes == 0) return Block{};
  if (!charge(request.bytes)) {
    live_.failed();
    return tl::unexpected(Error{.code = Errc::over_limit,
                                .stage = "limit",
                                .requested = request.bytes,
                                .available = saturating_subtract(max_bytes(), charged())});
  }
  Expected<Block> block = upstream().try_allocate(request);
  if (block) {
    live_.granted(*block);
    pin();
  } else {
    charged_.fetch_sub(request.bytes, std::memory_order_relaxed);
    live_.failed();
  }
  return block;
}

bool Limit::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  if (!upstream().deallocate(block, stream)) {
    live_.refused();
    return false;
  }
  live_.freed(block);
  charged_.fetch_sub(block.requested, std::memory_order_relaxed);
  unpin();
  return true;
}

Stats Limit::stats() const noexcept {
  Stats stats = upstream().stats();
  live_.write_to(stats);
  return stats;
}

void Limit::reset_peaks(const Stats& floor) noexcept {
  live_.reset_peaks(floor);
  Stage::reset_peaks(floor);
}

Outstanding Limit::outstanding() const noexcept {
  Outstanding below = upstream().outstanding();
  const Stats own = stats();
  return {.blocks = own.live_blocks.current,
          .bytes = own.live_granted.current,
          .largest =
              own.live_blocks.current > 0 ? std::min(below.largest, own.live_granted.current) : 0};
}

std::string Limit::validate() const {
  Stats own;
  live_.write_to(own);
  if (charged() != own.live_requested.current) return "limit: what is charged is what is live";
  if (own.allocations - own.frees != own.live_blocks.current)
    return "limit: allocations less frees are live";
  return Stage::validate();
}

}  // namespace cistern
