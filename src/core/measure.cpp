#include "cistern/core/measure.hpp"

#include <algorithm>

namespace cistern {

Stats Measure::sofar() const noexcept {
  Stats now = resource_->stats();
  Stats::each_counter(
      [](std::string_view, std::uint64_t& count, const std::uint64_t& before) { count -= before; },
      now, before_);
  return now;
}

Stats Measure::stop() noexcept {
  if (stopped_) return result_;
  stopped_ = true;
  result_ = sofar();
  Stats outer = before_;
  Stats::each_gauge([](std::string_view, Gauge& around,
                       const Gauge& within) { around.peak = std::max(around.peak, within.peak); },
                    outer, result_);
  resource_->reset_peaks(outer);
  return result_;
}

}  // namespace cistern
