#include "cistern/device/simulated_queues.hpp"

#include <algorithm>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "core/splitmix.hpp"
#include "device/block_start.hpp"
#include "device/range_map.hpp"
#include "device/use_order.hpp"

namespace cistern {
namespace {

std::string name_of(std::uint64_t stream) {
  const bool is_out_of_order = Stream{.handle = nullptr, .id = stream}.runs_out_of_order();
  return "stream " + std::to_string(stream & ~Stream::out_of_order) +
         (is_out_of_order ? " (out of order)" : "");
}

std::string name_of(const SimulatedQueues::Work& work) {
  return "work " + std::to_string(work.number) +
         (work.access == SimulatedQueues::Access::write ? " (writes)" : " (reads)") + " on " +
         name_of(work.stream);
}

tl::unexpected<Error> queue_failure() noexcept {
  return tl::unexpected(Error{.code = Errc::device_failed, .stage = "simulated"});
}

}  // namespace

std::string describe(const SimulatedQueues::Conflict& conflict) {
  const std::string place =
      std::to_string(conflict.bytes) + " bytes at " + std::to_string(conflict.address);
  if (conflict.later.number == 0)
    return place + " were given back on " + name_of(conflict.later.stream) + ", which " +
           name_of(conflict.earlier) + " need not come before";
  return place + " are used by " + name_of(conflict.earlier) + " and " + name_of(conflict.later) +
         " without an order between them";
}

struct SimulatedQueues::State {
  // What a write leaves on its bytes is its number; 0 is what nobody wrote.
  using Shadow = RangeMap<std::uint64_t>;

  static constexpr std::size_t most_conflicts = 1000;
  static constexpr std::size_t most_reports = 100;

  struct Range {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
  };
  struct Seen {
    Range range;
    std::uint64_t number = 0;
  };

  // A marker has run when all before it in its queue has, and a barrier runs when its marker has;
  // nothing behind a barrier runs before it.
  struct Entry {
    enum class Kind : std::uint8_t { work, marker, barrier } kind = Kind::work;
    std::uint64_t number = 0;   // of the work or the marker
    std::vector<Seen> expects;  // what the work would find if all ran as launched
    std::vector<Range> writes;
  };
  using Entries = std::list<Entry>;
  struct Queue {
    bool is_out_of_order = false;
    Entries entries;
  };
  struct Runnable {
    Queue* queue = nullptr;
    Entries::iterator entry;
  };

  void begin(Stream stream);
  void enqueue_wait(Stream waiter, Stream on);
  void wait_for_host(Stream stream);
  void retire(Stream stream);
  [[nodiscard]] bool is_open(const Entry& barrier) const {
    return barrier.kind == Entry::Kind::barrier && open_markers.contains(barrier.number);
  }
  void add_runnable(Queue& queue, std::vector<Runnable>& runnable) const;
  [[nodiscard]] std::vector<Runnable> all_runnable();
  void run(const Runnable& next);
  void run_work(const Entry& work);
  void drain(Queue& queue);
  void take_conflicts();
  void report(std::string text);

  std::mutex mutex;  // guards all below
  std::map<std::uint64_t, Queue> queues;
  std::map<std::uint64_t, std::uint64_t> open_markers;  // and the streams they stand in
  std::set<std::uint64_t> retired;
  UseOrder order;
  Shadow launched;  // what the bytes hold if all ran as launched
  Shadow found;     // what they hold
  std::vector<Conflict> conflicts;
  std::vector<std::string> reports;
  std::uint64_t corruptions = 0;
  std::uint64_t next_stream = 1;
  std::uint64_t last_work = 0;
  std::uint64_t last_marker = 0;
  std::uint64_t run_works = 0;
  std::uint64_t waits = 0;
  std::uint64_t synchronizations = 0;
  std::uint64_t fail_wait = 0;
  std::uint64_t fail_synchronization = 0;
  bool ignores_waits = false;
};

void SimulatedQueues::State::begin(Stream stream) {
  if (retired.contains(stream.id)) return;
  queues.try_emplace(stream.id).first->second.is_out_of_order = stream.runs_out_of_order();
  order.begin(stream);
  next_stream = std::max(next_stream, (stream.id & ~Stream::out_of_order) + 1);
}

// Where nothing stands in the other stream nothing need be enqueued: a program that only waits
// takes no memory.
void SimulatedQueues::State::enqueue_wait(Stream waiter, Stream on) {
  begin(waiter);
  begin(on);
  if (!order.knows(waiter) || !order.knows(on)) return;
  order.wait(waiter, on);
  Entries& before = queues.at(on.id).entries;
  if (before.empty()) return;
  const std::uint64_t marker = ++last_marker;
  open_markers.emplace(marker, on.id);
  before.push_back({.kind = Entry::Kind::marker, .number = marker, .expects = {}, .writes = {}});
  queues.at(waiter.id).entries.push_back(
      {.kind = Entry::Kind::barrier, .number = marker, .expects = {}, .writes = {}});
}

void SimulatedQueues::State::wait_for_host(Stream stream) {
  const auto found_queue = queues.find(stream.id);
  if (found_queue == queues.end()) return;
  order.wait_on_host(stream);
  drain(found_queue->second);
}

void SimulatedQueues::State::retire(Stream stream) {
  begin(stream);
  wait_for_host(stream);
  if (stream.id == 0 || !retired.insert(stream.id).second) return;
  order.retire(stream);
  queues.erase(stream.id);
}

void SimulatedQueues::State::add_runnable(Queue& queue, std::vector<Runnable>& runnable) const {
  for (auto entry = queue.entries.begin(); entry != queue.entries.end(); ++entry) {
    const bool is_first = entry == queue.entries.begin();
    if (!is_open(*entry) && (is_first || entry->kind != Entry::Kind::marker))
      runnable.push_back({.queue = &queue, .entry = entry});
    if (!queue.is_out_of_order || entry->kind == Entry::Kind::barrier) return;
  }
}

std::vector<SimulatedQueues::State::Runnable> SimulatedQueues::State::all_runnable() {
  std::vector<Runnable> runnable;
  for (auto& [id, queue] : queues)
    add_runnable(queue, runnable);
  return runnable;
}

void SimulatedQueues::State::run(const Runnable& next) {
  if (next.entry->kind == Entry::Kind::marker) open_markers.erase(next.entry->number);
  if (next.entry->kind == Entry::Kind::work) run_work(*next.entry);
  next.queue->entries.erase(next.entry);
}

void SimulatedQueues::State::run_work(const Entry& work) {
  ++run_works;
  bool is_corrupt = false;
  for (const Seen& seen : work.expects) {
    found.read(seen.range.begin, seen.range.end,
               [&](std::uintptr_t begin, std::uintptr_t end, std::uint64_t number) {
                 if (number == seen.number) return;
                 if (!is_corrupt)
                   report("work " + std::to_string(work.number) + " found what work " +
                          std::to_string(number) + " wrote, and not work " +
                          std::to_string(seen.number) + ", in " + std::to_string(end - begin) +
                          " bytes at " + std::to_string(begin));
                 is_corrupt = true;
               });
  }
  if (is_corrupt) ++corruptions;
  for (const Range& range : work.writes) {
    found.update(range.begin, range.end,
                 [&](std::uintptr_t, std::uintptr_t, std::uint64_t& last) { last = work.number; });
  }
}

// Only what it needs of other queues is run as well. A marker is older than its barrier, so that
// this ends.
void SimulatedQueues::State::drain(Queue& queue) {
  while (!queue.entries.empty()) {
    Queue* next = &queue;
    while (is_open(next->entries.front()))
      next = &queues.at(open_markers.at(next->entries.front().number));
    run({.queue = next, .entry = next->entries.begin()});
  }
}

void SimulatedQueues::State::take_conflicts() {
  for (const Conflict& conflict : order.take_conflicts()) {
    report(describe(conflict));
    if (conflicts.size() < most_conflicts) conflicts.push_back(conflict);
  }
}

void SimulatedQueues::State::report(std::string text) {
  if (reports.size() < most_reports) reports.push_back(std::move(text));
}

SimulatedQueues::SimulatedQueues() : state_(std::make_unique<State>()) {
  state_->begin({});
}

SimulatedQueues::~SimulatedQueues() = default;

Stream SimulatedQueues::make_stream(bool out_of_order) {
  const std::lock_guard lock(state_->mutex);
  const Stream stream{.handle = nullptr,
                      .id = state_->next_stream | (out_of_order ? Stream::out_of_order : 0)};
  state_->begin(stream);
  return stream;
}

std::uint64_t SimulatedQueues::launch(Stream stream, std::span<const Use> uses) {
  const std::lock_guard lock(state_->mutex);
  state_->begin(stream);
  if (!state_->order.knows(stream)) {
    state_->report("work is launched on " + name_of(stream.id) + ", which was retired");
    return 0;
  }
  const std::uint64_t number = ++state_->last_work;
  State::Entry entry{
      .kind = State::Entry::Kind::work, .number = number, .expects = {}, .writes = {}};
  for (const Use& use : uses) {
    const std::uintptr_t start = start_of(use.block);
    const State::Range range{.begin = start, .end = start + use.block.bytes};
    const Work work{.number = number, .stream = stream.id, .access = use.access};
    state_->order.use(work, range.begin, range.end);
    state_->launched.read(range.begin, range.end,
                          [&](std::uintptr_t begin, std::uintptr_t end, std::uint64_t last) {
                            entry.expects.push_back({{.begin = begin, .end = end}, last});
                          });
    if (use.access == Access::write && range.begin < range.end) entry.writes.push_back(range);
  }
  for (const State::Range& range : entry.writes) {
    state_->launched.update(
        range.begin, range.end,
        [&](std::uintptr_t, std::uintptr_t, std::uint64_t& last) { last = number; });
  }
  state_->order.end_work({.number = number, .stream = stream.id, .access = Access::read}, stream);
  state_->take_conflicts();
  state_->queues.at(stream.id).entries.push_back(std::move(entry));
  return number;
}

void SimulatedQueues::wait_as_program(Stream waiter, Stream on) {
  const std::lock_guard lock(state_->mutex);
  state_->enqueue_wait(waiter, on);
}

void SimulatedQueues::run(std::uint64_t seed) {
  std::uint64_t state = seed;
  while (step(splitmix_next(state))) {
  }
}

bool SimulatedQueues::step(std::uint64_t choice) {
  const std::lock_guard lock(state_->mutex);
  const std::vector<State::Runnable> runnable = state_->all_runnable();
  if (runnable.empty()) return false;
  state_->run(runnable[choice % runnable.size()]);
  return true;
}

Expected<void> SimulatedQueues::do_wait(Stream waiter, Stream on) noexcept try {
  const std::lock_guard lock(state_->mutex);
  const bool is_refused =
      ++state_->waits == state_->fail_wait || state_->retired.contains(waiter.id);
  if (is_refused) return queue_failure();
  if (!state_->ignores_waits) state_->enqueue_wait(waiter, on);
  return {};
} catch (const std::bad_alloc&) {
  return queue_failure();
}

Expected<void> SimulatedQueues::do_synchronize(Stream stream) noexcept try {
  const std::lock_guard lock(state_->mutex);
  if (++state_->synchronizations == state_->fail_synchronization) return queue_failure();
  state_->wait_for_host(stream);
  return {};
} catch (const std::bad_alloc&) {
  return queue_failure();
}

void SimulatedQueues::do_retire(Stream stream) noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->retire(stream);
}

void SimulatedQueues::gave_back(std::uintptr_t address, std::size_t bytes, Stream stream) noexcept
    try {
  const std::lock_guard lock(state_->mutex);
  state_->order.give_back(stream, address, address + bytes);
  state_->take_conflicts();
  const auto found = state_->queues.find(stream.id);
  if (found != state_->queues.end()) state_->drain(found->second);
  state_->launched.erase(address, address + bytes);
  state_->found.erase(address, address + bytes);
} catch (const std::bad_alloc&) {
  return;  // what is known of the bytes stays known; a device's addresses are not used again
}

std::vector<std::string> SimulatedQueues::reports() const {
  const std::lock_guard lock(state_->mutex);
  return state_->reports;
}

std::vector<SimulatedQueues::Conflict> SimulatedQueues::conflicts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->conflicts;
}

std::uint64_t SimulatedQueues::corruptions() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->corruptions;
}

std::uint64_t SimulatedQueues::waits() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->waits;
}

std::uint64_t SimulatedQueues::synchronizations() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->synchronizations;
}

std::uint64_t SimulatedQueues::works_launched() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->last_work;
}

std::uint64_t SimulatedQueues::works_run() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->run_works;
}

void SimulatedQueues::fail_next_wait(std::uint64_t n) noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->fail_wait = n == 0 ? 0 : state_->waits + n;
}

void SimulatedQueues::fail_next_synchronization(std::uint64_t n) noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->fail_synchronization = n == 0 ? 0 : state_->synchronizations + n;
}

void SimulatedQueues::ignore_waits(bool ignores) noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->ignores_waits = ignores;
}

std::size_t SimulatedQueues::known_ranges() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->order.known_ranges() + state_->launched.size() + state_->found.size();
}

}  // namespace cistern
