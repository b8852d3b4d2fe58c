#include "cistern/core/measure.hpp"

namespace cistern {
namespace {

// The gauges of a Stats can be visited only one Stats at a time: pair them up by position.
void raise_peaks(Stats& stats, const Stats& other) noexcept {
  const Gauge* theirs = nullptr;
  Stats::each_gauge(stats, [&](std::string_view wanted, Gauge& gauge) {
    Stats::each_gauge(other, [&](std::string_view key, const Gauge& candidate) {
      if (key == wanted) theirs = &candidate;
    });
    gauge.peak = std::max(gauge.peak, theirs->peak);
  });
}

void subtract_counters(Stats& stats, const Stats& before) noexcept {
  Stats::each_counter(stats, [&](std::string_view wanted, std::uint64_t& count) {
    Stats::each_counter(before, [&](std::string_view key, const std::uint64_t& earlier) {
      if (key == wanted) count -= earlier;
    });
  });
}

}  // namespace

Stats Measure::sofar() const noexcept {
  Stats now = resource_->stats();
  subtract_counters(now, before_);
  return now;
}

Stats Measure::stop() noexcept {
  if (stopped_) return result_;
  stopped_ = true;
  result_ = sofar();
  Stats outer = before_;
  raise_peaks(outer, result_);
  resource_->reset_peaks(outer);
  return result_;
}

}  // namespace cistern
