// Measuring what a part of a program does with a resource: the difference of its counters and the
// peaks within. Scopes of one resource nest; they are not for several threads that open and close
// them out of order.
#pragma once

#include "cistern/core/resource.hpp"

namespace cistern {

class Measure {
 public:
  /// Starts: the resource's peaks are reset to the current levels.
  explicit Measure(Resource& resource) noexcept : resource_(&resource), before_(resource.stats()) {
    resource.reset_peaks();
  }
  Measure(const Measure&) = delete;
  Measure& operator=(const Measure&) = delete;
  Measure(Measure&&) = delete;
  Measure& operator=(Measure&&) = delete;
  ~Measure() { stop(); }

  /// The counters' rise since the start, and the levels with their peaks since then.
  [[nodiscard]] Stats sofar() const noexcept;

  /// Ends the scope, putting the peaks of the scope around it back (raised by what happened
  /// within), and returns `sofar()`. Ending twice changes nothing and returns the same.
  Stats stop() noexcept;

 private:
  Resource* resource_;
  Stats before_;
  Stats result_;
  bool stopped_ = false;
};

}  // namespace cistern
