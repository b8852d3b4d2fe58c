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
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
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
bool has_failed = false;

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

/// What allocates and frees: the driver, or a stack.
class MeasuredDriver {
 public:
  MeasuredDriver(const cistern::CudaApi& api, CudaDevice& device, bool is_async)
      : api_(api), is_async_(is_async) {
    check(api_.push_context(device.context()), "cuCtxPushCurrent");
    if (!is_async_) return;
    const cistern::CudaPoolProperties made{.location = {.id = device.ordinal()}};
    check(api_.create_pool(&pool_, &made), "cuMemPoolCreate");
    auto keep = std::numeric_limits<std::uint64_t>::max();
    check(api_.set_pool(pool_, cistern::CudaPoolAttribute::release_threshold, &keep),
          "cuMemPoolSetAttribute");
  }
  MeasuredDriver(const MeasuredDriver&) = delete;
  MeasuredDriver& operator=(const MeasuredDriver&) = delete;
  MeasuredDriver(MeasuredDriver&&) = delete;
  MeasuredDriver& operator=(MeasuredDriver&&) = delete;
  ~MeasuredDriver() {
    if (pool_ != nullptr) api_.destroy_pool(pool_);
    CUctx_st* popped = nullptr;
    api_.pop_context(&popped);
  }

  using Handle = cistern::CudaAddress;
  [[nodiscard]] Handle allocate(std::size_t bytes) const {
    Handle memory = 0;
    check(is_async_ ? api_.allocate_async(&memory, bytes, pool_, default_stream())
                    : api_.allocate(&memory, bytes),
          "an allocation");
    return memory;
  }
  void free(Handle memory) const {
    check(is_async_ ? api_.free_async(memory, default_stream()) : api_.free(memory), "a free");
  }
  static void cycle() {}

 private:
  static CUstream_st* default_stream() {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): that is how CUDA names it
    return reinterpret_cast<CUstream_st*>(cistern::cuda_legacy_stream);
  }
  static void check(cistern::CudaResult code, const char* call) { cistern::check_cuda(code, call); }

  const cistern::CudaApi& api_;
  bool is_async_;
  CUmemPoolHandle_st* pool_ = nullptr;
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

/// A row of what `make` makes, or why there is none.
template <class Make>
void print_row(const char* name, Make&& make, const std::vector<std::size_t>& token) try {
  const auto measured = make();
  using Measured = std::remove_const_t<decltype(measured)>;
  std::printf("| `%s` |", name);
  for (const std::size_t bytes : pair_sizes) {
    std::printf(" %.0f |", ns_per_operation(64, [&] {
                  for (int i = 0; i < 64; ++i)
                    measured.free(measured.allocate(bytes));
                }));
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
  std::printf(" %.0f |\n", ns);
  std::fflush(stdout);
} catch (const std::exception& error) {
  std::printf("| `%s` | not measured: %s | | | | |\n", name, error.what());
  has_failed = true;
}

void print_pairs(const cistern::CudaApi& api, CudaDevice& device) {
  const std::vector<std::size_t> token = token_sizes(1750);
  std::puts("Nanoseconds a pair (allocation and free), on the default stream, one thread:\n");
  std::puts("| | 4 KiB | 64 KiB | 1 MiB | 16 MiB | token loop |\n|---|---|---|---|---|---|");
  for (const bool is_async : {false, true}) {
    print_row(
        is_async ? "cuMemAllocFromPoolAsync" : "cuMemAlloc",
        [&] { return MeasuredDriver(api, device, is_async); }, token);
  }
  for (const char* text : {"cache > cuda", "coalesce > cuda", "virtual > cuda",
                           "planned > cache > cuda", "cache > cuda(memory=async)"})
    print_row(
        text, [&] { return MeasuredStack(text); }, token);
}

/// Microseconds a page to map and to unmap runs of so many pages.
void print_pages(CudaDevice& device) {
  cistern::VirtualMemory* const memory = device.virtual_memory();
  if (memory == nullptr) {
    std::puts("\nThis GPU has no virtual memory management.");
    return;
  }
  constexpr std::size_t most = 64;
  const std::size_t page = memory->page_sizes().smallest;
  const cistern::AddressRange range = memory->reserve(most * page, page).value();
  std::printf(
      "\nMicroseconds a page of %zu KiB:\n\n| pages a call | map | unmap |\n|---|---|---|\n",
      page >> 10U);
  for (const std::size_t pages : {std::size_t{1}, std::size_t{8}, most}) {
    std::vector<double> map_ns;
    std::vector<double> unmap_ns;
    for (int turn = 0; turn < 50; ++turn) {
      const auto begin = Clock::now();
      require(memory->map(range, range.start, pages * page));
      const auto mapped = Clock::now();
      memory->unmap(range, range.start, pages * page, {});
      map_ns.push_back(ns_between(begin, mapped));
      unmap_ns.push_back(ns_between(mapped, Clock::now()));
    }
    const auto us_per_page = [&](std::vector<double>& ns) {
      std::nth_element(ns.begin(), ns.begin() + 25, ns.end());
      return ns[25] / 1e3 / static_cast<double>(pages);
    };
    std::printf("| %zu | %.1f | %.1f |\n", pages, us_per_page(map_ns), us_per_page(unmap_ns));
  }
  memory->release(range);
}

/// Fills a quarter of a GiB again and again, and reads it back once.
void print_managed() {
  std::puts("\nGB/s of fills of 256 MiB, the first (which may move the memory) and later ones:\n");
  std::puts("| | first | later | as written |\n|---|---|---|---|");
  for (const char* text : {"cuda", "cuda(memory=managed)"}) {
    const cistern::Stack stack = cistern::open(text);
    auto& device = dynamic_cast<CudaDevice&>(stack->device());
    if (device.free_memory() < 4_GiB) {
      std::printf("| `%s` | less than 4 GiB are free: left out | | |\n", text);
      continue;
    }
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
    const bool is_right =
        std::ranges::count(read, std::byte('b')) == static_cast<std::ptrdiff_t>(read.size());
    std::printf("| `%s` | %.1f | %.1f | %s |\n", text, first, later, is_right ? "yes" : "NO");
  }
}

}  // namespace

int main(int count, char** arguments) try {
  std::string why;
  const std::vector<cistern::CudaFound> found = cistern::find_cuda_devices(why);
  if (found.empty()) {
    std::fprintf(stderr, "no CUDA device: %s\n", why.c_str());
    return without_gpu;
  }
  std::printf("%s, %zu MiB, CUDA %d.%d\n\n", found[0].name.c_str(), found[0].total_memory >> 20U,
              found[0].driver_version / 1000, found[0].driver_version % 1000 / 10);
  if (count > 1 && std::string_view(arguments[1]) == "--look") return 0;
  const auto device = cistern::make<CudaDevice>(CudaDevice::Options{});
  device->deallocate(device->allocate(1_KiB));  // which makes the context
  print_pairs(*cistern::CudaApi::system(why), *device);
  print_pages(*device);
  print_managed();
  return has_failed ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench/gpu: %s\n", error.what());
  return 1;
}
