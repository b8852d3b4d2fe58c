#include "device/cuda_streams.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace cistern {
namespace {

CUstream_st* special_stream(std::uintptr_t handle) noexcept {
  return reinterpret_cast<CUstream_st*>(handle);
}

/// Never used again, nor in another context: a stream that strays is nobody's.
std::uint64_t next_cuda_stream() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// Of the calling thread, and of no other that ever was.
std::uint64_t this_thread() noexcept {
  static std::atomic<std::uint64_t> last{0};
  thread_local const std::uint64_t own = ++last;
  return own;
}

}  // namespace

CudaQueue::~CudaQueue() {
  if (streams_ != nullptr && id_ != 0) streams_->let_go(id_);
}

std::shared_ptr<CudaStreamTable> CudaStreamTable::of(const CudaApi& api, CUctx_st* context) {
  using Key = std::pair<const CudaApi*, CUctx_st*>;
  static std::mutex mutex;
  static auto& shared =
      *new std::map<Key, std::weak_ptr<CudaStreamTable>>;  // devices are closed late
  const std::lock_guard lock(mutex);
  std::erase_if(shared, [](const auto& each) { return each.second.expired(); });
  std::weak_ptr<CudaStreamTable>& known = shared[{&api, context}];
  std::shared_ptr<CudaStreamTable> streams = known.lock();
  if (streams == nullptr) {
    streams = std::make_shared<CudaStreamTable>(api, context);
    known = streams;
  }
  return streams;
}

CudaStreamTable::Members CudaStreamTable::enter() noexcept {
  const std::lock_guard lock(mutex_);
  const auto fewest = std::ranges::min_element(devices_);
  ++*fewest;
  return Members{1} << static_cast<unsigned>(fewest - devices_.begin());
}

void CudaStreamTable::leave(Members member) noexcept {
  const std::lock_guard lock(mutex_);
  if (--devices_[static_cast<std::size_t>(std::countr_zero(member))] > 0) return;
  for (auto& [id, known] : known_)
    known.members &= ~member;
}

void CudaStreamTable::remove(Table::iterator known) noexcept {
  known->second.is_leaving = true;
  if (known->second.uses == 0) known_.erase(known);
}

Stream CudaStreamTable::add(CUstream_st* handle, Members member) {
  Known added{.handle = handle, .members = member};
  if (CudaStreams::is_per_thread(handle)) {
    added.thread = this_thread();
  } else if (!is_captured(handle)) {
    check_context_of(handle);
    added.driver_id = driver_id_of(handle);
  }
  const std::lock_guard lock(mutex_);
  for (auto it = known_.begin(); it != known_.end(); ++it) {
    Known& known = it->second;
    if (known.handle != handle || known.thread != added.thread || known.is_leaving) continue;
    const bool is_unknown = known.driver_id == 0 || added.driver_id == 0;
    if (is_unknown || known.driver_id == added.driver_id) {
      known.driver_id = std::max(known.driver_id, added.driver_id);
      known.members |= member;
      return {.handle = handle, .id = it->first};
    }
    remove(it);  // it was destroyed, and its handle is another's now
    break;
  }
  const std::uint64_t id = next_cuda_stream();
  known_.emplace(id, added);
  return {.handle = handle, .id = id};
}

// The one question that is allowed of a stream that is captured: others may end the capture.
bool CudaStreamTable::is_captured(CUstream_st* handle) const noexcept {
  CudaCaptureStatus status = CudaCaptureStatus::none;
  std::uint64_t graph = 0;
  return api_.capture_info(handle, &status, &graph) == CudaResult::success &&
         status != CudaCaptureStatus::none;
}

void CudaStreamTable::check_context_of(CUstream_st* handle) const {
  CUctx_st* of = nullptr;
  check_cuda(api_.stream_context(handle, &of), "cuStreamGetCtx");
  if (of != context_) throw std::invalid_argument("cuda: the stream is of another context");
}

unsigned long long CudaStreamTable::driver_id_of(CUstream_st* handle) const noexcept {
  unsigned long long number = 0;
  const bool is_known =
      api_.stream_id != nullptr && api_.stream_id(handle, &number) == CudaResult::success;
  return is_known ? number : 0;
}

// The legacy stream waits for every thread's default stream, and they for it.
CudaQueue CudaStreamTable::queue_of(Stream stream, Members member) noexcept {
  if (stream.id == 0) return {*this, special_stream(cuda_legacy_stream), 0};
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(stream.id);
  if (found == known_.end() || found->second.is_leaving) return {};
  Known& known = found->second;
  known.members |= member;
  if (known.thread != 0 && known.thread != this_thread())
    return {*this, special_stream(cuda_legacy_stream), 0};
  ++known.uses;
  return {*this, known.handle, stream.id};
}

void CudaStreamTable::let_go(std::uint64_t stream) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(stream);
  if (--found->second.uses > 0 || !found->second.is_leaving) return;
  known_.erase(found);
  let_go_.notify_all();
}

void CudaStreamTable::forget(Stream stream) noexcept {
  std::unique_lock lock(mutex_);
  const auto found = known_.find(stream.id);
  if (found == known_.end()) return;
  remove(found);
  let_go_.wait(lock, [&] { return !known_.contains(stream.id); });
}

std::optional<Stream> CudaStreamTable::next_after(Stream stream, Members member) noexcept {
  const std::lock_guard lock(mutex_);
  const auto is_members = [&](const auto& each) { return (each.second.members & member) != 0; };
  const auto next = std::find_if(known_.upper_bound(stream.id), known_.end(), is_members);
  if (next == known_.end()) return std::nullopt;
  return Stream{.handle = nullptr, .id = next->first};
}

// --- As one device knows them. ---

bool CudaStreams::is_default(CUstream_st* handle) noexcept {
  return handle == nullptr || handle == special_stream(cuda_legacy_stream);
}

bool CudaStreams::is_per_thread(CUstream_st* handle) noexcept {
  return handle == special_stream(cuda_per_thread_stream);
}

CudaQueue CudaStreams::queue_of(Stream stream) noexcept {
  if (stream.id == 0) uses_default_.store(true, std::memory_order_relaxed);
  return table_->queue_of(stream, member_);
}

CudaQueue CudaStreams::queue_or_default(Stream stream) noexcept {
  CudaQueue queue = queue_of(stream);
  return queue ? CudaQueue(std::move(queue)) : queue_of({});
}

}  // namespace cistern
