#include "cistern/trace/capacity.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "cistern/core/size.hpp"
#include "cistern/trace/summary.hpp"
#include "trace/pass.hpp"
#include "trace/program.hpp"

namespace cistern {
namespace {

constexpr std::size_t largest_device = std::size_t{1} << 60U;

bool survives(const detail::Program& program, const Stack& stack) {
  detail::Pass pass(program);
  detail::Nobody nobody;
  pass.before(*stack, nobody);
  if (pass.initial_failed() == 0) pass.steps_until_refused(*stack);
  pass.free_all(*stack);
  return pass.initial_failed() == 0 && pass.tally().failed == 0;
}

}  // namespace

SmallestCapacity smallest_capacity(const Trace& trace,
                                   const std::function<Stack(std::size_t capacity)>& open,
                                   const CapacityOptions& options) {
  if (options.granularity == 0) throw std::invalid_argument("a capacity's granularity is not 0");
  const detail::Program program = detail::compile(trace);
  SmallestCapacity found;
  const auto survives_on = [&](std::uint64_t granules) {
    ++found.replays;
    return survives(program, open(static_cast<std::size_t>(granules) * options.granularity));
  };

  const std::uint64_t most = largest_device / options.granularity;
  const std::uint64_t peak = summarise(trace).peak_live_bytes;
  const std::uint64_t least = std::max<std::uint64_t>(
      peak / options.granularity + (peak % options.granularity != 0 ? 1 : 0), 1);
  if (least > most) return found;

  // `beyond` is too small, and `enough` will do.
  std::uint64_t beyond = least - 1;
  std::uint64_t enough = least;
  while (!survives_on(enough)) {
    beyond = enough;
    if (enough > most / 2) return found;
    enough *= 2;
  }
  const auto bits = std::bit_width(enough - beyond);
  while (enough - beyond > 1) {
    if (options.progress)
      options.progress(1 - static_cast<double>(std::bit_width(enough - beyond)) /
                               static_cast<double>(bits + 1));
    const std::uint64_t middle = beyond + (enough - beyond) / 2;
    (survives_on(middle) ? enough : beyond) = middle;
  }
  found.bytes = enough * options.granularity;
  return found;
}

}  // namespace cistern
