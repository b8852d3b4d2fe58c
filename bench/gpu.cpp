// What the memory of a CUDA GPU costs: the driver's own calls beside stacks, in one run, as tables
// for a report. Without a GPU it says why there is none and ends with 77; with `--look` it does no
// more than look.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/stack/stack.hpp"
#include "device/cuda_api.hpp"
#include "token_sizes.hpp"

namespace {

using namespace cistern::literals;
using cistern::Block;
using cistern::CudaDevice;
using Clock = std::chrono::steady_clock;

constexpr int without_gpu = 77;
constexpr int rounds = 5;
constexpr auto round_time = std::chrono::milliseconds(40);

/// The tables as they grow. A row is shown once it is whole, so that a run that is stopped leaves
/// those before it.
class GpuReport {
 public:
  [[nodiscard]] bool has_failed() const noexcept { return has_failed_; }

  static void say(const std::string& text) {
    std::puts(text.c_str());
    std::fflush(stdout);
  }
  static void begin_table(const std::string& title, const std::vector<std::string>& head) {
    std::string rule = "|";
    for (std::size_t i = 0; i < head.size(); ++i)
      rule += "---|";
    say("\n" + title + "\n\n" + line_of(head) + "\n" + rule);
  }

  /// A row of the cells that `measure` returns, or why there are none.
  template <class Measure>
  void add_row(const std::string& name, Measure&& measure) {
    std::vector<std::string> cells{name};
    try {
      for (std::string& cell : measure())
        cells.push_back(std::move(cell));
    } catch (const std::exception& error) {
      cells.push_back(std::string("failed: ") + error.what());
      has_failed_ = true;
    }
    say(line_of(cells));
  }

 private:
  static std::string line_of(const std::vector<std::string>& cells) {
    std::string line = "|";
    for (const std::string& cell : cells)
      line += " " + cell + " |";
    return line;
  }

  bool has_failed_ = false;
};

std::string as_code(std::string_view text) {
  return "`" + std::string(text) + "`";
}

std::string rounded(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

void require(const cistern::Expected<void>& done) {
  if (!done) throw std::runtime_error(cistern::describe(done.error()));
}

double ns_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::nano>(end - begin).count();
}

/// Nanoseconds of one operation: the median of some rounds, each of as many turns as fill its time.
template <class Turn>
double ns_per_operation(std::size_t operations, Turn&& turn) {
  for (int warm_up = 0; warm_up < 4; ++warm_up)
    turn();
  std::array<double, rounds> found{};
  for (double& ns : found) {
    const auto begin = Clock::now();
    auto end = begin;
    std::size_t turns = 0;
    for (; end - begin < round_time; end = Clock::now(), ++turns)
      turn();
    ns = ns_between(begin, end) / static_cast<double>(turns * operations);
  }
  std::nth_element(found.begin(), found.begin() + rounds / 2, found.end());
  return found[rounds / 2];
}

/// Has a context current on this thread as long as it lives.
class CurrentContext {
 public:
  CurrentContext(const cistern::CudaApi& api, CUctx_st* context) : api_(api) {
    cistern::check_cuda(api_.push_context(context), "cuCtxPushCurrent");
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;
  CurrentContext(CurrentContext&&) = delete;
  CurrentContext& operator=(CurrentContext&&) = delete;
  ~CurrentContext() {
    CUctx_st* popped = nullptr;
    api_.pop_context(&popped);
  }

 private:
  const cistern::CudaApi& api_;
};

struct DestroyPool {
  void operator()(CUmemPoolHandle_st* pool) const { api->destroy_pool(pool); }

  const cistern::CudaApi* api;
};
using DriverPool = std::unique_ptr<CUmemPoolHandle_st, DestroyPool>;

/// A pool that keeps all that is freed.
DriverPool make_driver_pool(const cistern::CudaApi& api, int device) {
  const cistern::CudaPoolProperties properties{.location = {.id = device}};
  CUmemPoolHandle_st* made = nullptr;
  cistern::check_cuda(api.create_pool(&made, &properties), "cuMemPoolCreate");
  DriverPool pool(made, DestroyPool{&api});
  auto keep = std::numeric_limits<std::uint64_t>::max();
  cistern::check_cuda(
      api.set_pool(pool.get(), cistern::CudaPoolAttribute::release_threshold, &keep),
      "cuMemPoolSetAttribute");
  return pool;
}

/// What allocates and frees: the driver, or a stack.
class MeasuredDriver {
 public:
  MeasuredDriver(const cistern::CudaApi& api, CudaDevice& device, bool is_async)
      : api_(api),
        context_(api, device.context()),
        pool_(is_async ? make_driver_pool(api, device.ordinal())
                       : DriverPool(nullptr, DestroyPool{&api})) {}

  using Handle = cistern::CudaAddress;
  [[nodiscard]] Handle allocate(std::size_t bytes) const {
    Handle memory = 0;
    const auto code = is_async()
                          ? api_.allocate_async(&memory, bytes, pool_.get(), default_stream())
                          : api_.allocate(&memory, bytes);
    cistern::check_cuda(code, "an allocation");
    return memory;
  }
  void free(Handle memory) const {
    const auto code = is_async() ? api_.free_async(memory, default_stream()) : api_.free(memory);
    cistern::check_cuda(code, "a free");
  }
  static void cycle() {}

 private:
  [[nodiscard]] bool is_async() const noexcept { return pool_ != nullptr; }
  static CUstream_st* default_stream() {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): that is how CUDA names it
    return reinterpret_cast<CUstream_st*>(cistern::cuda_legacy_stream);
  }

  const cistern::CudaApi& api_;
  const CurrentContext context_;  // outlives the pool
  const DriverPool pool_;         // null: cuMemAlloc
};

class MeasuredStack {
 public:
  explicit MeasuredStack(const char* text) : stack_(cistern::open(text)) {}

  using Handle = Block;
  [[nodiscard]] Handle allocate(std::size_t bytes) const { return stack_->allocate(bytes); }
  void free(const Handle& block) const { stack_->deallocate(block); }
  void cycle() const { stack_->cycle(); }

 private:
  cistern::Stack stack_;
};

constexpr std::array<std::size_t, 4> pair_sizes{4_KiB, 64_KiB, 1_MiB, 16_MiB};

/// The cells of what `make` makes.
template <class Make>
std::vector<std::string> measure_pairs(const std::vector<std::size_t>& token, Make&& make) {
  const auto measured = make();
  using Measured = std::remove_const_t<decltype(measured)>;
  std::vector<std::string> cells;
  for (const std::size_t bytes : pair_sizes) {
    const double ns = ns_per_operation(64, [&] {
      for (int i = 0; i < 64; ++i)
        measured.free(measured.allocate(bytes));
    });
    cells.push_back(rounded(ns, 0));
  }
  std::vector<typename Measured::Handle> blocks;
  blocks.reserve(token.size());
  const double ns = ns_per_operation(token.size(), [&] {
    for (const std::size_t bytes : token)
      blocks.push_back(measured.allocate(bytes));
    for (const auto& block : blocks)
      measured.free(block);
    blocks.clear();
    measured.cycle();
  });
  cells.push_back(rounded(ns, 0));
  return cells;
}

void report_pairs(GpuReport& report, const cistern::CudaApi& api, CudaDevice& device) {
  const std::vector<std::size_t> token = token_sizes(1750);
  GpuReport::begin_table(
      "Nanoseconds a pair (allocation and free), on the default stream, one thread:",
      {"", "4 KiB", "64 KiB", "1 MiB", "16 MiB", "token loop"});
  for (const bool is_async : {false, true}) {
    report.add_row(as_code(is_async ? "cuMemAllocFromPoolAsync" : "cuMemAlloc"), [&] {
      return measure_pairs(token, [&] { return MeasuredDriver(api, device, is_async); });
    });
  }
  for (const char* text : {"cache > cuda", "coalesce > cuda", "virtual > cuda",
                           "planned > cache > cuda", "cache > cuda(memory=async)"}) {
    report.add_row(as_code(text),
                   [&] { return measure_pairs(token, [&] { return MeasuredStack(text); }); });
  }
}

/// Maps and unmaps the first pages of `range`: microseconds a page, medians.
std::vector<std::string> measure_pages(cistern::VirtualMemory& memory,
                                       const cistern::AddressRange& range, std::size_t pages) {
  const std::size_t bytes = pages * range.page;
  std::vector<double> map_ns;
  std::vector<double> unmap_ns;
  for (int turn = 0; turn < 50; ++turn) {
    const auto begin = Clock::now();
    require(memory.map(range, range.start, bytes));
    const auto mapped = Clock::now();
    memory.unmap(range, range.start, bytes, {});
    map_ns.push_back(ns_between(begin, mapped));
    unmap_ns.push_back(ns_between(mapped, Clock::now()));
  }
  const auto us_per_page = [&](std::vector<double>& ns) {
    std::nth_element(ns.begin(), ns.begin() + 25, ns.end());
    return rounded(ns[25] / 1e3 / static_cast<double>(pages), 1);
  };
  return {us_per_page(map_ns), us_per_page(unmap_ns)};
}

void report_pages(GpuReport& report, CudaDevice& device) {
  cistern::VirtualMemory* const memory = device.virtual_memory();
  if (memory == nullptr) {
    GpuReport::say("\nThis GPU has no virtual memory management.");
    return;
  }
  constexpr std::size_t most = 64;
  const std::size_t page = memory->page_sizes().smallest;
  const auto range = memory->reserve(most * page, page);
  if (!range) throw std::runtime_error(cistern::describe(range.error()));
  GpuReport::begin_table("Microseconds a page of " + std::to_string(page >> 10U) + " KiB:",
                         {"pages a call", "map", "unmap"});
  for (const std::size_t pages : {std::size_t{1}, std::size_t{8}, most}) {
    report.add_row(std::to_string(pages), [&] { return measure_pages(*memory, *range, pages); });
  }
  memory->release(*range);
}

/// Fills a quarter of a GiB again and again, and reads it back once.
std::vector<std::string> measure_fills(const char* text) {
  const cistern::Stack stack = cistern::open(text);
  cistern::Device& device = stack->device();
  const cistern::Buffer buffer = stack.buffer(256_MiB);
  const auto fill = [&](char value) {
    const auto begin = Clock::now();
    require(device.transfer()->fill(buffer.block(), 0, buffer.bytes(), std::byte(value), {}));
    require(device.stream_order()->synchronize({}));
    return static_cast<double>(256_MiB) / ns_between(begin, Clock::now());
  };
  const double first = fill('a');
  double later = 0;
  for (int turn = 0; turn < 10; ++turn)
    later = std::max(later, fill('b'));
  std::vector<std::byte> read(buffer.bytes());
  require(device.transfer()->download(read, buffer.block(), 0, {}));
  if (std::ranges::count(read, std::byte('b')) != static_cast<std::ptrdiff_t>(read.size()))
    throw std::runtime_error("what was read is not what was written");
  return {rounded(first, 1), rounded(later, 1)};
}

void report_fills(GpuReport& report, const CudaDevice& device) {
  if (device.free_memory() < 4_GiB) {
    GpuReport::say("\nLess than 4 GiB are free: fills are left out.");
    return;
  }
  GpuReport::begin_table(
      "GB/s of fills of 256 MiB, the first (which may move the memory) and later ones, all of it "
      "read back as written:",
      {"", "first", "later"});
  for (const char* text : {"cuda", "cuda(memory=managed)"})
    report.add_row(as_code(text), [&] { return measure_fills(text); });
}

}  // namespace

int main(int count, char** arguments) try {
  std::string why;
  const std::vector<cistern::CudaFound> found = cistern::find_cuda_devices(why);
  if (found.empty()) {
    std::fprintf(stderr, "no CUDA device: %s\n", why.c_str());
    return without_gpu;
  }
  std::printf("%s, %zu MiB, CUDA %d.%d\n", found[0].name.c_str(), found[0].total_memory >> 20U,
              found[0].driver_version / 1000, found[0].driver_version % 1000 / 10);
  if (count > 1 && std::string_view(arguments[1]) == "--look") return 0;
  const auto device = cistern::make<CudaDevice>(CudaDevice::Options{});
  device->deallocate(device->allocate(1_KiB));  // which makes the context
  GpuReport report;
  report_pairs(report, *cistern::CudaApi::system(why), *device);
  report_pages(report, *device);
  report_fills(report, *device);
  return report.has_failed() ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench/gpu: %s\n", error.what());
  return 1;
}
