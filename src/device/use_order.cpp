#include "device/use_order.hpp"

#include <algorithm>
#include <utility>

namespace cistern {

void UseOrder::join(Clock& clock, const Clock& other) {
  for (const auto& [stream, number] : other) {
    std::uint64_t& known = clock[stream];
    known = std::max(known, number);
  }
}

UseOrder::Known& UseOrder::known(std::uint64_t stream) {
  Known& known = streams_.at(stream);
  join(known.clock, host_);
  return known;
}

UseOrder::Clock UseOrder::clock_of_marker(Stream stream) {
  const Known& on = known(stream.id);
  Clock clock = on.clock;
  clock[stream.id] = on.last;
  return clock;
}

void UseOrder::wait(Stream waiter, Stream on) {
  join(known(waiter.id).clock, clock_of_marker(on));
}

void UseOrder::wait_on_host(Stream on) {
  join(host_, clock_of_marker(on));
}

// All that it did is before all that will be done, so that no clock needs to say so.
void UseOrder::retire(Stream stream) {
  wait_on_host(stream);
  streams_.erase(stream.id);
  host_.erase(stream.id);
  for (auto& [id, each] : streams_)
    each.clock.erase(stream.id);
}

bool UseOrder::is_before(const Work& work, const Clock& clock) const {
  if (!streams_.contains(work.stream)) return true;
  const auto found = clock.find(work.stream);
  return found != clock.end() && found->second >= work.number;
}

void UseOrder::use(const Work& work, std::uintptr_t begin, std::uintptr_t end) {
  const Clock& clock = known(work.stream).clock;
  uses_.update(begin, end, [&](std::uintptr_t from, std::uintptr_t to, std::vector<Work>& uses) {
    const bool writes = work.access == Access::write;
    bool is_stood_for = false;  // by another use of the same piece of work
    for (const Work& use : uses) {
      if (use.number == work.number) {
        is_stood_for = is_stood_for || use.access == Access::write || !writes;
      } else if ((writes || use.access == Access::write) && !is_before(use, clock)) {
        note(from, to, use, work);
      }
    }
    if (is_stood_for) return;
    std::erase_if(uses, [&](const Work& use) {
      return (writes || use.access == Access::read) &&
             (use.number == work.number || is_before(use, clock));
    });
    uses.push_back(work);
  });
}

void UseOrder::end_work(const Work& work, Stream stream) {
  Known& on = known(stream.id);
  on.last = work.number;
  if (!stream.runs_out_of_order()) on.clock[stream.id] = work.number;
}

void UseOrder::give_back(Stream stream, std::uintptr_t begin, std::uintptr_t end) {
  const Clock clock = knows(stream) ? clock_of_marker(stream) : host_;
  const Work later{.number = 0, .stream = stream.id, .access = Access::write};
  uses_.read(begin, end,
             [&](std::uintptr_t from, std::uintptr_t to, const std::vector<Work>& uses) {
               for (const Work& use : uses) {
                 if (!is_before(use, clock)) note(from, to, use, later);
               }
             });
  uses_.erase(begin, end);
}

// The pieces of a range follow one another: what goes on from one to the next is one conflict.
void UseOrder::note(std::uintptr_t begin, std::uintptr_t end, const Work& earlier,
                    const Work& later) {
  const auto goes_on = [&](const Conflict& conflict) {
    return conflict.address + conflict.bytes == begin && conflict.earlier == earlier &&
           conflict.later == later;
  };
  const auto found = std::ranges::find_if(conflicts_, goes_on);
  if (found != conflicts_.end()) {
    found->bytes += end - begin;
  } else {
    conflicts_.push_back(
        {.address = begin, .bytes = end - begin, .earlier = earlier, .later = later});
  }
}

}  // namespace cistern
