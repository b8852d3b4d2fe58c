// How long reading a trace of a million events takes, in each format, from memory.
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "cistern/trace/encode.hpp"
#include "cistern/trace/read.hpp"

namespace {

constexpr std::uint64_t million = 1'000'000;
constexpr std::uint64_t live_at_once = 1000;

// An allocation in turn with the free of one made `live_at_once` allocations before.
template <class Allocate, class Free>
void make_events(Allocate allocate, Free free) {
  for (std::uint64_t i = 0; i < million / 2; ++i) {
    allocate(i);
    if (i >= live_at_once) free(i - live_at_once);
  }
  for (std::uint64_t i = million / 2 - live_at_once; i < million / 2; ++i)
    free(i);
}

std::uint64_t bytes_of(std::uint64_t block) {
  return 256 + block * 7919 % 1'000'000;
}
std::uint64_t address_of(std::uint64_t block) {
  return 0x7f0000000000 + (block << 21);
}

std::string binary() {
  std::vector<cistern::Event> events;
  const auto add = [&](std::uint64_t block, cistern::Operation operation) {
    const std::uint64_t sequence = events.size() + 1;
    events.push_back({.sequence = sequence,
                      .time_ns = sequence * 1000,
                      .id = block + 1,
                      .bytes = bytes_of(block),
                      .operation = operation});
  };
  make_events([&](std::uint64_t block) { add(block, cistern::Operation::allocate); },
              [&](std::uint64_t block) { add(block, cistern::Operation::free); });
  std::vector<std::byte> out;
  cistern::append_file_header(out);
  cistern::append_chunk(events, out);
  cistern::append_end(events.size(), out);
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

std::string rmm() {
  std::string out = "Thread,Time,Action,Pointer,Size,Stream\n";
  const auto add = [&](std::uint64_t block, const char* action) {
    out += "1,10:00:00.000000," + std::string(action) + ",0x" +
           std::to_string(1'000'000'000 + block) + "," + std::to_string(bytes_of(block)) + ",0x0\n";
  };
  make_events([&](std::uint64_t block) { add(block, "allocate"); },
              [&](std::uint64_t block) { add(block, "free"); });
  return out;
}

std::string chrome() {
  std::string out = R"({"traceEvents": [)";
  std::uint64_t time = 0;
  const auto add = [&](std::uint64_t block, const char* sign) {
    out += R"({"ph":"i","name":"[memory]","pid":1,"tid":1,"ts":)" + std::to_string(++time) +
           R"(,"args":{"Device Type":0,"Device Id":-1,"Addr":)" +
           std::to_string(address_of(block)) + R"(,"Bytes":)" + sign +
           std::to_string(bytes_of(block)) + "}},\n";
  };
  make_events([&](std::uint64_t block) { add(block, ""); },
              [&](std::uint64_t block) { add(block, "-"); });
  out.resize(out.size() - 2);
  return out + "]}";
}

// Protocol 2, without frames or memo: a dictionary of an empty list of segments and one list of
// events.
class Pickle {
 public:
  void raw(const char* bytes, std::size_t size) { out_.append(bytes, size); }
  void opcode(char code) { out_ += code; }
  void text(const std::string& value) {
    out_ += 'X';
    little_endian(value.size(), 4);
    out_ += value;
  }
  void number(std::uint64_t value) {
    out_ += "\x8a\x08";
    little_endian(value, 8);
  }
  std::string take() { return std::move(out_); }

 private:
  void little_endian(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i)
      out_ += static_cast<char>(value >> (8 * i));
  }
  std::string out_;
};

std::string pytorch() {
  Pickle pickle;
  pickle.raw("\x80\x02}(", 4);
  pickle.text("segments");
  pickle.opcode(']');
  pickle.text("device_traces");
  pickle.raw("](](", 4);
  const auto add = [&](std::uint64_t block, const char* action) {
    pickle.raw("}(", 2);
    pickle.text("action");
    pickle.text(action);
    pickle.text("addr");
    pickle.number(address_of(block));
    pickle.text("size");
    pickle.number(bytes_of(block));
    pickle.text("stream");
    pickle.number(0);
    pickle.opcode('u');
  };
  make_events([&](std::uint64_t block) { add(block, "alloc"); },
              [&](std::uint64_t block) { add(block, "free_completed"); });
  pickle.raw("eeu.", 4);
  return pickle.take();
}

void import(benchmark::State& state, std::string (*make)()) {
  const std::string file = make();
  for (auto turn : state) {
    const auto trace = cistern::read_trace_from_memory(file, "made");
    if (!trace) {
      state.SkipWithError(trace.error().text().c_str());
      return;
    }
    if (trace->events.size() != million) state.SkipWithError("events are missing");
  }
  state.counters["MB"] = static_cast<double>(file.size()) / 1e6;
}

BENCHMARK_CAPTURE(import, binary, binary)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(import, pytorch, pytorch)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(import, rmm, rmm)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(import, chrome, chrome)->Unit(benchmark::kMillisecond);

}  // namespace
