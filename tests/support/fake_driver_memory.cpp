// What the fake driver does about memory: whose it is, where it is mapped, and what may touch it.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "cistern/core/size.hpp"
#include "support/fake_driver.hpp"

namespace cistern::testing {
namespace {

std::byte* system_memory(std::size_t bytes, int protection) {
  void* const memory =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory != MAP_FAILED ? static_cast<std::byte*>(memory) : nullptr;
}

}  // namespace

CudaResult FakeDriver::memory_info(std::size_t* free, std::size_t* total) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  *total = machine_.memory;
  *free = machine_.memory - used_[index(here().gpu)];
  return CudaResult::success;
}

CudaResult FakeDriver::allocate(CudaAddress* memory, std::size_t bytes) {
  return obtain(Kind::device, memory, bytes);
}

CudaResult FakeDriver::free(CudaAddress memory) {
  return give_back(memory, Kind::device, Kind::managed);
}

CudaResult FakeDriver::allocate_managed(CudaAddress* memory, std::size_t bytes, unsigned flags) {
  if (flags != cuda_attach_global) return misuse("managed flags", CudaResult::invalid_value);
  return obtain(Kind::managed, memory, bytes);
}

CudaResult FakeDriver::allocate_host(void** memory, std::size_t bytes, unsigned flags) {
  if (flags != cuda_host_portable) return misuse("pinned flags", CudaResult::invalid_value);
  CudaAddress address = 0;
  const CudaResult code = obtain(Kind::host, &address, bytes);
  *memory = pointer_to(address);
  return code;
}

CudaResult FakeDriver::free_host(void* memory) {
  return give_back(address_at(memory), Kind::host, Kind::host);
}

CudaResult FakeDriver::create_pool(CUmemPoolHandle_st** pool, const CudaPoolProperties* made) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  const CudaPoolProperties wanted{
      .location = {.type = CudaLocationType::device, .id = made->location.id}};
  if (std::memcmp(made, &wanted, sizeof wanted) != 0 || !has_gpu(made->location.id))
    return misuse("the properties of a pool", CudaResult::invalid_value);
  *pool = &pools_.emplace_back();
  (*pool)->gpu = made->location.id;
  return CudaResult::success;
}

CudaResult FakeDriver::destroy_pool(CUmemPoolHandle_st* pool) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (!pool->is_there) return misuse("a pool is destroyed twice", CudaResult::invalid_value);
  trim(*pool, 0, true);  // what is out stays
  pool->is_there = false;
  return CudaResult::success;
}

CudaResult FakeDriver::trim_pool(CUmemPoolHandle_st* pool, std::size_t keep) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (!pool->is_there) return misuse("a pool that is gone", CudaResult::invalid_value);
  trim(*pool, keep, false);
  return CudaResult::success;
}

CudaResult FakeDriver::set_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (key != CudaPoolAttribute::release_threshold || !pool->is_there)
    return misuse("what is set of a pool", CudaResult::invalid_value);
  std::memcpy(&pool->threshold, value, sizeof pool->threshold);
  return CudaResult::success;
}

CudaResult FakeDriver::get_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (!pool->is_there) return misuse("a pool that is gone", CudaResult::invalid_value);
  std::uint64_t sum = 0;
  for (const auto& chunk : pool->chunks)
    sum += key == CudaPoolAttribute::reserved_current ? chunk.bytes : chunk.used;
  std::memcpy(value, &sum, sizeof sum);
  return CudaResult::success;
}

CudaResult FakeDriver::allocate_async(CudaAddress* memory, std::size_t bytes,
                                      CUmemPoolHandle_st* pool, CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (stream->capture != 0)
    return misuse("memory of a pool is asked for in a capture", CudaResult::invalid_value);
  if (bytes == 0 || !pool->is_there) return misuse("a pool's request", CudaResult::invalid_value);
  auto best = pool->chunks.end();
  for (auto each = pool->chunks.begin(); each != pool->chunks.end(); ++each) {
    const bool is_better = best == pool->chunks.end() || each->bytes < best->bytes;
    if (each->used == 0 && each->bytes >= bytes && is_better) best = each;
  }
  if (best == pool->chunks.end()) {
    const std::size_t whole = round_up(bytes, machine_.page).value_or(unbounded);
    const CudaResult code = take(pool->gpu, whole);
    if (code != CudaResult::success) return code;
    std::byte* const made = system_memory(whole, PROT_READ | PROT_WRITE);
    pool->chunks.push_back({.address = address_at(made), .bytes = whole});
    best = std::prev(pool->chunks.end());
  }
  if (best->freed_on != nullptr) queues_.wait_as_program(stream->simulated, sim(best->freed_on));
  best->freed_on = nullptr;
  best->used = bytes;
  *memory = best->address;
  allocations_[best->address] = {
      .bytes = bytes, .kind = Kind::async, .context = current(), .pool = pool};
  ++figures_.allocations;
  return CudaResult::success;
}

CudaResult FakeDriver::free_async(CudaAddress memory, CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (stream->capture != 0)
    return misuse("memory that no graph has is freed in a capture", CudaResult::invalid_value);
  const auto found = allocations_.find(memory);
  if (found == allocations_.end() || found->second.kind != Kind::async)
    return misuse("cuMemFreeAsync of what is none of a pool's", CudaResult::invalid_value);
  launch_on(*stream, memory, found->second.bytes);
  for (auto& chunk : found->second.pool->chunks) {
    if (chunk.address != memory) continue;
    chunk.used = 0;
    chunk.freed_on = stream;
  }
  allocations_.erase(found);
  return CudaResult::success;
}

CudaResult FakeDriver::granularity(std::size_t* bytes, const CudaAllocation* of,
                                   CudaGranularity which) {
  if (!is_meant(*of) || which != CudaGranularity::minimum)
    return misuse("the granularity of what", CudaResult::invalid_value);
  *bytes = machine_.page;
  return CudaResult::success;
}

CudaResult FakeDriver::reserve_addresses(CudaAddress* start, std::size_t bytes,
                                         std::size_t alignment, CudaAddress wanted,
                                         unsigned long long flags) {
  if (wanted != 0 || flags != 0 || bytes == 0 || bytes % machine_.page != 0 ||
      (alignment & (alignment - 1)) != 0)
    return misuse("cuMemAddressReserve", CudaResult::invalid_value);
  if (bytes > (std::size_t{1} << 46U)) return CudaResult::out_of_memory;
  std::byte* const all = system_memory(bytes + alignment, PROT_NONE);
  if (all == nullptr) return CudaResult::out_of_memory;
  const std::size_t before = (alignment - address_at(all) % alignment) % alignment;
  if (before > 0) munmap(all, before);
  munmap(all + before + bytes, alignment - before);
  *start = address_at(all + before);
  ranges_[*start] = {.bytes = bytes, .pages = {}};
  return CudaResult::success;
}

CudaResult FakeDriver::free_addresses(CudaAddress start, std::size_t bytes) {
  const auto found = ranges_.find(start);
  if (found == ranges_.end() || found->second.bytes != bytes)
    return misuse("addresses are freed as they were reserved", CudaResult::invalid_value);
  if (!found->second.pages.empty())
    return misuse("addresses are freed while memory is mapped there", CudaResult::invalid_value);
  munmap(pointer_to(start), bytes);
  ranges_.erase(found);
  return CudaResult::success;
}

CudaResult FakeDriver::create_physical(CudaPhysicalMemory* memory, std::size_t bytes,
                                       const CudaAllocation* made, unsigned long long flags) {
  if (!is_meant(*made) || flags != 0 || bytes == 0 || bytes % machine_.page != 0)
    return misuse("cuMemCreate", CudaResult::invalid_value);
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (const CudaResult code = take(made->location.id, bytes); code != CudaResult::success)
    return code;
  *memory = ++last_physical_;
  physical_[*memory] = {.bytes = bytes, .gpu = made->location.id, .is_held = true, .mapped = 0};
  return CudaResult::success;
}

CudaResult FakeDriver::release_physical(CudaPhysicalMemory memory) {
  const auto found = physical_.find(memory);
  if (found == physical_.end() || !found->second.is_held)
    return misuse("physical memory is released once", CudaResult::invalid_value);
  found->second.is_held = false;
  drop_physical(found);
  return CudaResult::success;
}

CudaResult FakeDriver::map(CudaAddress start, std::size_t bytes, std::size_t offset,
                           CudaPhysicalMemory memory, unsigned long long flags) {
  const auto range = range_of(start, bytes);
  const auto found = physical_.find(memory);
  if (range == ranges_.end() || found == physical_.end() || !found->second.is_held ||
      bytes != found->second.bytes || offset != 0 || flags != 0)
    return misuse("cuMemMap of what is not reserved or not there", CudaResult::invalid_value);
  for (const auto& [at, page] : range->second.pages) {
    if (at < start + bytes && start < at + page.bytes)
      return misuse("memory is mapped where some is", CudaResult::invalid_value);
  }
  range->second.pages[start] = {.bytes = bytes, .memory = memory, .has_access = false};
  ++found->second.mapped;
  return CudaResult::success;
}

CudaResult FakeDriver::unmap(CudaAddress start, std::size_t bytes) {
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  const auto range = range_of(start, bytes);
  if (range == ranges_.end()) return misuse("cuMemUnmap", CudaResult::invalid_value);
  const auto page = range->second.pages.find(start);
  if (page == range->second.pages.end() || page->second.bytes != bytes)
    return misuse("memory is unmapped as it was mapped", CudaResult::invalid_value);
  use_up(start, bytes);
  mprotect(pointer_to(start), bytes, PROT_NONE);
  madvise(pointer_to(start), bytes, MADV_DONTNEED);
  const auto found = physical_.find(page->second.memory);
  --found->second.mapped;
  drop_physical(found);
  range->second.pages.erase(page);
  return CudaResult::success;
}

CudaResult FakeDriver::set_access(CudaAddress start, std::size_t bytes, const CudaAccess* access,
                                  std::size_t count) {
  const auto range = range_of(start, bytes);
  if (count != 1 || access->location.type != CudaLocationType::device ||
      access->flags != CudaAccessFlags::read_write || range == ranges_.end())
    return misuse("cuMemSetAccess", CudaResult::invalid_value);
  for (CudaAddress at = start; at < start + bytes;) {
    const auto page = range->second.pages.find(at);
    if (page == range->second.pages.end())
      return misuse("access to where nothing is mapped", CudaResult::invalid_value);
    page->second.has_access = true;
    at += page->second.bytes;
  }
  mprotect(pointer_to(start), bytes, PROT_READ | PROT_WRITE);
  return CudaResult::success;
}

CudaResult FakeDriver::copy(CudaAddress to, CudaAddress from, std::size_t bytes,
                            CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  const Place target = place_of(to, bytes);
  const Place source = place_of(from, bytes);
  if (target == Place::wrong || source == Place::wrong)
    return misuse("a copy from or to memory that is not there", CudaResult::invalid_value);
  if (stream->capture != 0) return CudaResult::success;
  std::vector<SimulatedQueues::Use> uses;
  if (target == Place::known) uses.push_back(use(to, bytes, SimulatedQueues::Access::write));
  if (source == Place::known) uses.push_back(use(from, bytes, SimulatedQueues::Access::read));
  launch(*stream, uses);
  std::memcpy(pointer_to(to), pointer_to(from), bytes);
  return CudaResult::success;
}

CudaResult FakeDriver::fill(CudaAddress to, unsigned char value, std::size_t bytes,
                            CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (place_of(to, bytes) != Place::known)
    return misuse("memory is filled that is not there", CudaResult::invalid_value);
  if (stream->capture != 0) return CudaResult::success;
  launch_on(*stream, to, bytes);
  std::memset(pointer_to(to), value, bytes);
  return CudaResult::success;
}

CudaResult FakeDriver::advise(CudaAddress memory, std::size_t bytes, CudaAdvice advice,
                              CudaOrdinal device) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (!is_managed(memory, bytes) || !has_gpu(device))
    return misuse("advice about memory that is not managed", CudaResult::invalid_value);
  if (advice == CudaAdvice::set_preferred_location) {
    preferred_[memory] = bytes;
  } else {
    preferred_.erase(memory);
  }
  return CudaResult::success;
}

CudaResult FakeDriver::prefetch(CudaAddress memory, std::size_t bytes, CudaOrdinal to,
                                CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (!is_managed(memory, bytes) || !has_gpu(to))
    return misuse("memory is prefetched that is not managed", CudaResult::invalid_value);
  ++figures_.prefetches;
  return CudaResult::success;
}

bool FakeDriver::is_meant(const CudaAllocation& allocation) const {
  const CudaAllocation wanted{
      .location = {.type = CudaLocationType::device, .id = allocation.location.id}};
  return std::memcmp(&allocation, &wanted, sizeof wanted) == 0 && has_gpu(wanted.location.id);
}

void FakeDriver::launch_on(CUstream_st& stream, CudaAddress memory, std::size_t bytes) {
  const SimulatedQueues::Use all = use(memory, bytes, SimulatedQueues::Access::write);
  launch(stream, std::span(&all, 1));
}

void FakeDriver::use_up(CudaAddress memory, std::size_t bytes) {
  const Stream end = queues_.make_stream();
  const SimulatedQueues::Use all = use(memory, bytes, SimulatedQueues::Access::write);
  queues_.launch(end, std::span(&all, 1));
  queues_.retire(end);
}

CudaResult FakeDriver::take(int gpu, std::size_t bytes) {
  std::size_t& used = used_[index(gpu)];
  if (bytes > machine_.memory - used) return CudaResult::out_of_memory;
  used += bytes;
  return CudaResult::success;
}

CudaResult FakeDriver::obtain(Kind kind, CudaAddress* memory, std::size_t bytes) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (bytes == 0) return misuse("nothing is asked for", CudaResult::invalid_value);
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  if (kind == Kind::device) {
    if (const CudaResult code = take(here().gpu, bytes); code != CudaResult::success) return code;
  }
  std::byte* const made = system_memory(bytes, PROT_READ | PROT_WRITE);
  if (made == nullptr) {
    if (kind == Kind::device) used_[index(here().gpu)] -= bytes;
    return CudaResult::out_of_memory;
  }
  *memory = address_at(made);
  allocations_[*memory] = {.bytes = bytes, .kind = kind, .context = current()};
  ++figures_.allocations;
  return CudaResult::success;
}

CudaResult FakeDriver::give_back(CudaAddress memory, Kind one, Kind other) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  const auto found = allocations_.find(memory);
  if (found == allocations_.end() || (found->second.kind != one && found->second.kind != other))
    return misuse("what is freed was not obtained, or was freed before", CudaResult::invalid_value);
  const Allocation allocation = found->second;
  if (allocation.context != current())
    return misuse("memory is freed in another context", CudaResult::invalid_context);
  if (preferred_.contains(memory))
    static_cast<void>(misuse("memory goes back while it is resident", CudaResult::success));
  use_up(memory, allocation.bytes);
  if (allocation.kind == Kind::device) used_[index(allocation.context->gpu)] -= allocation.bytes;
  munmap(pointer_to(memory), allocation.bytes);
  allocations_.erase(found);
  return CudaResult::success;
}

void FakeDriver::trim(CUmemPoolHandle_st& pool, std::size_t keep, bool is_over) {
  std::size_t reserved = 0;
  for (const auto& chunk : pool.chunks)
    reserved += chunk.bytes;
  std::erase_if(pool.chunks, [&](const CUmemPoolHandle_st::Chunk& chunk) {
    const bool is_idle = chunk.used == 0 && (chunk.freed_on == nullptr || is_over);
    if (!is_idle || reserved - chunk.bytes < keep) return false;
    // A pool that is destroyed keeps what was freed until its stream has come to that.
    if (chunk.freed_on != nullptr) static_cast<void>(queues_.synchronize(sim(chunk.freed_on)));
    reserved -= chunk.bytes;
    used_[index(pool.gpu)] -= chunk.bytes;
    munmap(pointer_to(chunk.address), chunk.bytes);
    return true;
  });
}

FakeDriver::Ranges::iterator FakeDriver::range_of(CudaAddress start, std::size_t bytes) {
  auto after = ranges_.upper_bound(start);
  if (after == ranges_.begin()) return ranges_.end();
  --after;
  const bool is_within = start + bytes <= after->first + after->second.bytes;
  return is_within ? after : ranges_.end();
}

void FakeDriver::drop_physical(std::map<CudaPhysicalMemory, Physical>::iterator memory) {
  if (memory->second.is_held || memory->second.mapped > 0) return;
  used_[index(memory->second.gpu)] -= memory->second.bytes;
  physical_.erase(memory);
}

FakeDriver::Place FakeDriver::place_of(CudaAddress memory, std::size_t bytes) {
  const auto after = allocations_.upper_bound(memory);
  if (after != allocations_.begin()) {
    const auto& [start, allocation] = *std::prev(after);
    if (memory < start + allocation.bytes)
      return memory + bytes <= start + allocation.bytes ? Place::known : Place::wrong;
  }
  const auto range = range_of(memory, 1);
  if (range == ranges_.end()) return Place::pageable;
  for (CudaAddress at = memory; at < memory + bytes;) {
    const auto next = range->second.pages.upper_bound(at);
    if (next == range->second.pages.begin()) return Place::wrong;
    const auto& [start, page] = *std::prev(next);
    if (at >= start + page.bytes || !page.has_access) return Place::wrong;
    at = start + page.bytes;
  }
  return Place::known;
}

bool FakeDriver::is_managed(CudaAddress memory, std::size_t bytes) {
  const auto after = allocations_.upper_bound(memory);
  if (after == allocations_.begin()) return false;
  const auto& [start, allocation] = *std::prev(after);
  return allocation.kind == Kind::managed && memory + bytes <= start + allocation.bytes;
}

}  // namespace cistern::testing
