#include "device/cuda_pages.hpp"

#include <algorithm>
#include <exception>
#include <iterator>
#include <span>
#include <utility>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

using namespace literals;

CudaAddress as_address(const std::byte* start) noexcept {
  return static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(start));
}

}  // namespace

CudaDevice::Pages::Pages(CudaDevice& device, State& state)
    : VirtualMemory(device, {.smallest = state.page, .largest = std::max(state.page, 1_GiB)}),
      state_(state) {}

CudaDevice::Pages::~Pages() {
  if (ranges_.empty()) return;
  const CudaScope scope(state_);
  settle();
  for (const auto& [start, table] : ranges_)
    state_.report_left(table.left * table.page);
}

void CudaDevice::Pages::trim() noexcept {
  if (!has_left_.load(std::memory_order_relaxed)) return;
  const CudaScope scope(state_);
  settle();
}

Expected<AddressRange> CudaDevice::Pages::do_reserve(std::size_t bytes, std::size_t page) noexcept {
  const CudaScope scope(state_);
  if (scope.result() != CudaResult::success)
    return tl::unexpected(state_.fail(scope.result(), bytes));
  const std::lock_guard lock(mutex_);
  Table table{.pages = {}, .page = page};
  CudaAddress start = 0;
  const CudaResult code = state_.api.reserve_addresses(&start, bytes, page, 0, 0);
  if (code != CudaResult::success) {
    // The driver answers a size that no address space has with another word than a full one.
    const bool is_too_much = code == CudaResult::invalid_value;
    return tl::unexpected(is_too_much ? fail(Errc::out_of_memory, bytes)
                                      : state_.fail(code, bytes));
  }
  const AddressRange range{
      .start = reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(start)),
      .bytes = bytes,
      .page = page};
  try {
    table.pages.resize(bytes / page, Page::none);
    ranges_.emplace(range.start, std::move(table));
    return range;
  } catch (const std::exception&) {  // the host has no memory for the table, or none so large
    state_.expect_freed(state_.api.free_addresses(start, bytes), bytes);
    return tl::unexpected(fail(Errc::out_of_memory, bytes));
  }
}

void CudaDevice::Pages::do_release(const AddressRange& range) noexcept {
  const CudaScope scope(state_);
  settle();
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(range.start);
  found->second.is_released = true;
  if (found->second.left == 0) release(found);
}

CudaDevice::Pages::Ranges::iterator CudaDevice::Pages::release(Ranges::iterator range) noexcept {
  const std::size_t bytes = range->second.pages.size() * range->second.page;
  state_.expect_freed(state_.api.free_addresses(as_address(range->first), bytes), 0);
  return ranges_.erase(range);
}

Expected<void> CudaDevice::Pages::do_map(const AddressRange& range, std::byte* start,
                                         std::size_t bytes, Stream stream) noexcept {
  if (state_.is_broken()) return tl::unexpected(state_.fail(state_.broken(), bytes));
  const CudaScope scope(state_);
  if (scope.result() != CudaResult::success)
    return tl::unexpected(state_.fail(scope.result(), bytes));
  settle();
  state_.settle();
  const std::lock_guard lock(mutex_);
  Table& table = ranges_.find(range.start)->second;
  const auto first = static_cast<std::size_t>(start - range.start) / table.page;
  const std::size_t last = first + bytes / table.page;
  const auto pages = std::span(table.pages).subspan(first, last - first);
  const auto left = static_cast<std::size_t>(std::ranges::count(pages, Page::left));
  if (left < pages.size()) {
    const CudaQueue queue = state_.streams().queue_or_default(stream);
    const CudaResult refusal = state_.capture_of(queue.get()).refusal();
    if (refusal != CudaResult::success && refusal != CudaResult::stream_capture_implicit)
      return tl::unexpected(state_.fail(refusal, bytes));
  }
  // What was left is charged still.
  const std::size_t charged = bytes - left * table.page;
  if (!state_.account().take(charged, state_.total_memory)) {
    return tl::unexpected(fail(Errc::out_of_memory, bytes,
                               saturating_subtract(state_.total_memory, state_.account().held())));
  }
  const CudaResult code = back(range, table, first, last);
  if (code == CudaResult::success) return {};
  state_.account().put(charged);
  return tl::unexpected(state_.fail(code, bytes));
}

// All of the pages or none; those that were left stay so in the second case.
CudaResult CudaDevice::Pages::back(const AddressRange& range, Table& table, std::size_t first,
                                   std::size_t last) noexcept {
  CudaResult code = CudaResult::success;
  std::size_t next = first;
  for (; next < last && code == CudaResult::success; ++next) {
    if (table.pages[next] == Page::none)
      code = map_page(range.start + next * table.page, table.page);
  }
  if (code == CudaResult::success) {
    const CudaAccess access{.location = {.type = CudaLocationType::device, .id = state_.id}};
    code = state_.api.set_access(as_address(range.start + first * table.page),
                                 (last - first) * table.page, &access, 1);
  } else {
    --next;  // it has none
  }
  const auto pages = std::span(table.pages).subspan(first, last - first);
  if (code == CudaResult::success) {
    table.left -= static_cast<std::size_t>(std::ranges::count(pages, Page::left));
    std::ranges::fill(pages, Page::mapped);
    return code;
  }
  for (std::size_t i = first; i < next; ++i) {
    if (table.pages[i] == Page::none) unmap_page(range.start + i * table.page, table.page);
  }
  return code;
}

// The mapping keeps the memory: the handle can go at once.
CudaResult CudaDevice::Pages::map_page(std::byte* start, std::size_t page) noexcept {
  const CudaAllocation properties{.location = {.type = CudaLocationType::device, .id = state_.id}};
  CudaPhysicalMemory memory = 0;
  CudaResult code = state_.api.create_physical(&memory, page, &properties, 0);
  if (code != CudaResult::success) return code;
  code = state_.api.map(as_address(start), page, 0, memory, 0);
  state_.expect_freed(state_.api.release_physical(memory), page);
  return code;
}

void CudaDevice::Pages::unmap_page(std::byte* start, std::size_t page) noexcept {
  state_.expect_freed(state_.api.unmap(as_address(start), page), page);
}

void CudaDevice::Pages::do_unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
                                 Stream stream) noexcept {
  const CudaScope scope(state_);
  settle();
  const bool is_finished = state_.finish(stream);
  const std::lock_guard lock(mutex_);
  Table& table = ranges_.find(range.start)->second;
  const auto first = static_cast<std::size_t>(start - range.start) / table.page;
  const auto pages = std::span(table.pages).subspan(first, bytes / table.page);
  if (!is_finished) {
    std::ranges::fill(pages, Page::left);
    table.left += pages.size();
    ++times_left_;
    has_left_.store(true, std::memory_order_relaxed);
    return;
  }
  for (std::size_t i = 0; i < pages.size(); ++i)
    unmap_page(start + i * table.page, table.page);
  std::ranges::fill(pages, Page::none);
  state_.account().put(bytes);
}

// Unless others were left meanwhile, which may be in use.
void CudaDevice::Pages::settle() noexcept {
  if (!has_left_.load(std::memory_order_relaxed)) return;
  std::uint64_t times = 0;
  {
    const std::lock_guard lock(mutex_);
    times = times_left_;
  }
  if (!state_.synchronize_all()) return;
  const std::lock_guard lock(mutex_);
  if (times != times_left_) return;
  for (auto range = ranges_.begin(); range != ranges_.end();) {
    clear(range->first, range->second);
    range = range->second.is_released ? release(range) : std::next(range);
  }
  has_left_.store(false, std::memory_order_relaxed);
}

void CudaDevice::Pages::clear(std::byte* start, Table& table) noexcept {
  for (std::size_t i = 0; i < table.pages.size() && table.left > 0; ++i) {
    if (table.pages[i] != Page::left) continue;
    unmap_page(start + i * table.page, table.page);
    table.pages[i] = Page::none;
    --table.left;
    state_.account().put(table.page);
  }
}

}  // namespace cistern
