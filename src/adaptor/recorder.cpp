#include "cistern/adaptor/recorder.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adaptor/live_counters.hpp"
#include "cistern/core/batch.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/trace/encode.hpp"
#include "core/failure.hpp"

namespace cistern {
namespace {

constexpr std::size_t events_per_buffer = 1024;
constexpr std::size_t most_chunk_bytes = 64 * events_per_buffer;  // of a full buffer, encoded
constexpr std::size_t node_batch = 64;
constexpr std::size_t most_spare_nodes = 4 * node_batch;

struct RecorderNode : Node {
  Block upstream;
  std::atomic<std::size_t> granted{
      0};  // as in `upstream`, for whoever looks on from another thread
  std::uint64_t id = 0;
  std::size_t alignment = 0;  // as requested
  std::uint64_t stream = 0;   // likewise
  RecorderNode* next_free = nullptr;
};

Event birth_of(const RecorderNode& node) noexcept {
  return {.bytes = node.upstream.requested,
          .alignment = node.alignment,
          .stream = node.stream,
          .operation = Operation::allocate};
}

Event death_of(const RecorderNode& node, std::uint64_t stream) noexcept {
  return {.id = node.id,
          .bytes = node.upstream.requested,
          .stream = stream,
          .operation = Operation::free};
}

/// What one thread needs to record without asking anyone: its events and a few nodes. Owned by the
/// recorder and by the thread, whichever lives longer; used by the thread, and once by the recorder
/// when it finishes.
class ThreadBuffer {
 public:
  explicit ThreadBuffer(std::uint64_t recorder) : recorder_(recorder) {
    events.reserve(events_per_buffer);
  }

  [[nodiscard]] std::uint64_t recorder() const noexcept { return recorder_; }

  // Uncontended but for the one time that the recorder finishes.
  void lock() noexcept {
    while (busy_.exchange(true, std::memory_order_acquire))
      std::this_thread::yield();
  }
  void unlock() noexcept { busy_.store(false, std::memory_order_release); }

  std::vector<Event> events;
  std::uint32_t thread = 0;
  RecorderNode* spare_nodes = nullptr;
  std::size_t spare_count = 0;
  std::atomic<bool> thread_ended{false};

 private:
  const std::uint64_t recorder_;
  std::atomic<bool> busy_{false};
};

/// The buffers of the calling thread, one for each recorder it has met.
struct ThreadBuffers {
  std::vector<std::shared_ptr<ThreadBuffer>> all;
  ThreadBuffer* last = nullptr;

  static thread_local bool are_gone;  // the thread is ending: nothing may be made again

  ThreadBuffers() = default;
  ThreadBuffers(const ThreadBuffers&) = delete;
  ThreadBuffers& operator=(const ThreadBuffers&) = delete;
  ThreadBuffers(ThreadBuffers&&) = delete;
  ThreadBuffers& operator=(ThreadBuffers&&) = delete;
  ~ThreadBuffers() {
    for (const auto& buffer : all)
      buffer->thread_ended.store(true, std::memory_order_release);
    are_gone = true;
  }
};

thread_local bool ThreadBuffers::are_gone = false;

ThreadBuffers* my_buffers() noexcept {
  if (ThreadBuffers::are_gone) return nullptr;
  thread_local ThreadBuffers buffers;
  return &buffers;
}

std::uint64_t next_recorder() noexcept {
  static std::atomic<std::uint64_t> count{0};
  return ++count;
}

[[noreturn]] void cannot_write(const std::filesystem::path& file, int error, const char* why) {
  throw std::system_error(error, std::generic_category(),
                          "trace: cannot write " + file.string() + why);
}

/// Who records into a file has it alone: two would spoil it, in one process or in several.
std::FILE* create_locked(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) cannot_write(file, errno, "");
  const auto refuse = [&](const char* why) {
    const int error = errno;
    ::close(descriptor);
    cannot_write(file, error, why);
  };
  struct stat status {};
  const bool is_file = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  // Where a file system has no locks, nobody is kept out.
  if (is_file && ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    refuse(", which another stack or process records into");
  if (is_file && ::ftruncate(descriptor, 0) != 0) refuse("");
  std::FILE* const opened = ::fdopen(descriptor, "wb");
  if (opened == nullptr) refuse("");
  return opened;
}

}  // namespace

class Recorder::Impl {
 public:
  Impl(const Resource* owner, const std::filesystem::path& file) : nodes_(owner) {
    append_file_header(chunk_);
    chunk_.reserve(chunk_.size() + most_chunk_bytes);  // so that recording a free allocates nothing
    file_.reset(create_locked(file));
    std::setvbuf(file_.get(), nullptr, _IONBF, 0);  // chunks are large, and a fork copies no buffer
    write_chunk();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  Impl(Impl&&) = delete;
  Impl& operator=(Impl&&) = delete;
  ~Impl() { finish(); }

  /// The calling thread's buffer; null if there is none because the thread is ending or the host
  /// has no memory.
  ThreadBuffer* buffer() noexcept {
    ThreadBuffers* mine = my_buffers();
    if (mine == nullptr) return nullptr;
    if (mine->last != nullptr && mine->last->recorder() == number_) [[likely]]
      return mine->last;
    return find_buffer(*mine);
  }

  /// Adds an event at the present time. `event.id` 0 stands for "a new id": the sequence number.
  /// Returns the id, or 0 if nothing is recorded any more.
  std::uint64_t record(ThreadBuffer* buffer, Event event) noexcept {
    if (buffer == nullptr) {
      event = record_unbuffered(event);
    } else {
      const std::lock_guard lock(*buffer);
      if (finished_.load(std::memory_order_relaxed)) return 0;
      stamp(event, buffer->thread);
      buffer->events.push_back(event);  // there is room: a full buffer is flushed at once
      if (buffer->events.size() == events_per_buffer) flush(*buffer);
    }
    report_failure();
    return event.id;
  }

  /// Null if the host has no memory.
  RecorderNode* take_node(ThreadBuffer* buffer) noexcept {
    if (buffer != nullptr && buffer->spare_nodes != nullptr) [[likely]]
      return pop_spare(*buffer);
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 1; buffer != nullptr && i < node_batch; ++i) {
      RecorderNode* spare = nodes_.take();
      if (spare == nullptr) break;
      push_spare(*buffer, spare);
    }
    return nodes_.take();
  }

  void put_node(ThreadBuffer* buffer, RecorderNode* node) noexcept {
    if (buffer != nullptr && buffer->spare_count < most_spare_nodes) {
      push_spare(*buffer, node);
      return;
    }
    const std::lock_guard lock(mutex_);
    nodes_.put(node);
    while (buffer != nullptr && buffer->spare_count > most_spare_nodes / 2)
      nodes_.put(pop_spare(*buffer));
  }

  /// A node for each block of a batch, in its place; false, with all as they were, if the host has
  /// no memory.
  bool take_nodes(ThreadBuffer* buffer, std::span<Block> blocks) noexcept {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i].empty()) continue;
      RecorderNode* node = take_node(buffer);
      if (node == nullptr) {
        for (Block& block : blocks.first(i)) {
          if (block.empty()) continue;
          auto* taken = static_cast<RecorderNode*>(block.node);
          block = taken->upstream;
          put_node(buffer, taken);
        }
        return false;
      }
      node->upstream = blocks[i];
      blocks[i].node = node;
    }
    return true;
  }

  /// Records the allocation of the node's upstream block; the block that stands for it.
  Block hand_out(RecorderNode& node, const Request& request, ThreadBuffer* buffer,
                 std::size_t live_blocks) noexcept {
    node.granted.store(node.upstream.bytes, std::memory_order_relaxed);
    node.alignment = request.alignment;
    node.stream = request.stream.id;
    node.id = record(buffer, birth_of(node));
    Block block = node.upstream;
    block.node = &node;
    block.generation = node.begin_life();
    live.granted(block, live_blocks);
    return block;
  }

  bool finish() noexcept {
    {
      const std::lock_guard finishing(finish_mutex_);
      if (!finished_.exchange(true)) {
        flush_all();
        close_file();
      }
    }
    report_failure();
    return error_.load() == 0;
  }

  template <class Visit>
  void each_node(Visit&& visit) {
    const std::lock_guard lock(mutex_);
    nodes_.each(visit);
  }

  std::uint64_t next_cycle() noexcept {
    return cycles_.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  LiveCounters live;

 private:
  static void push_spare(ThreadBuffer& buffer, RecorderNode* node) noexcept {
    node->next_free = buffer.spare_nodes;
    buffer.spare_nodes = node;
    ++buffer.spare_count;
  }
  static RecorderNode* pop_spare(ThreadBuffer& buffer) noexcept {
    RecorderNode* node = buffer.spare_nodes;
    buffer.spare_nodes = node->next_free;
    --buffer.spare_count;
    return node;
  }

  ThreadBuffer* find_buffer(ThreadBuffers& mine) noexcept {
    for (const auto& buffer : mine.all) {
      if (buffer->recorder() == number_) return mine.last = buffer.get();
    }
    try {
      std::erase_if(mine.all, [](const auto& buffer) {
        return buffer.use_count() == 1;
      });  // their recorder is gone
      mine.all.reserve(mine.all.size() + 1);
      mine.all.push_back(register_buffer());
      return mine.last = mine.all.back().get();
    } catch (const std::bad_alloc&) {
      mine.last = nullptr;
      return nullptr;
    }
  }

  std::shared_ptr<ThreadBuffer> register_buffer() {
    const std::lock_guard lock(mutex_);
    const auto ended = std::find_if(buffers_.begin(), buffers_.end(), [](const auto& buffer) {
      return buffer->thread_ended.exchange(false, std::memory_order_acquire);
    });
    if (ended != buffers_.end()) {
      (*ended)->thread = threads_++;
      return *ended;
    }
    buffers_.push_back(std::make_shared<ThreadBuffer>(number_));
    buffers_.back()->thread = threads_++;
    return buffers_.back();
  }

  void stamp(Event& event, std::uint32_t thread) noexcept {
    event.sequence = sequence_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (event.id == 0) event.id = event.sequence;
    event.time_ns = static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start_).count());
    event.thread = thread;
  }

  /// For threads without a buffer: a chunk of one event.
  Event record_unbuffered(Event event) noexcept {
    const std::lock_guard lock(mutex_);
    if (finished_.load()) return {};
    if (unbuffered_thread_ == no_thread) unbuffered_thread_ = threads_++;
    stamp(event, unbuffered_thread_);
    append_chunk({&event, 1}, chunk_);
    write_chunk();
    ++events_written_;
    return event;
  }

  void flush(ThreadBuffer& buffer) noexcept {
    const std::lock_guard lock(mutex_);
    append_chunk(buffer.events, chunk_);
    write_chunk();
    events_written_ += buffer.events.size();
    buffer.events.clear();
  }

  /// `finished_` is set: buffers that come later hold nothing.
  void flush_all() noexcept {
    for (std::size_t i = 0;; ++i) {
      std::shared_ptr<ThreadBuffer> buffer;
      {
        const std::lock_guard lock(mutex_);
        if (i == buffers_.size()) return;
        buffer = buffers_[i];
      }
      const std::lock_guard lock(*buffer);
      flush(*buffer);
    }
  }

  void close_file() noexcept {
    const std::lock_guard lock(mutex_);
    append_end(events_written_, chunk_);
    write_chunk();
    if (getpid() == process_) ::flock(::fileno(file_.get()), LOCK_UN);  // also for a forked child
    if (std::fclose(file_.release()) != 0) fail(errno);
  }

  /// Writes and empties `chunk_`. After a fork the file is the parent's.
  void write_chunk() noexcept {
    const bool is_ours = getpid() == process_;
    if (is_ours && error_.load() == 0 && !chunk_.empty() &&
        std::fwrite(chunk_.data(), chunk_.size(), 1, file_.get()) != 1) {
      fail(errno);
    }
    chunk_.clear();
  }

  void fail(int error) noexcept {
    int none = 0;
    error_.compare_exchange_strong(none, error != 0 ? error : EIO);
  }

  /// Outside every lock, because the program's sink may use the stack.
  void report_failure() noexcept {
    const int error = error_.load(std::memory_order_relaxed);
    if (error == 0 || reported_.exchange(true)) return;
    std::array<char, 128> text{};
    report("trace: the recording is incomplete: %s", strerror_r(error, text.data(), text.size()));
  }

  struct CloseFile {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };

  static constexpr std::uint32_t no_thread = std::numeric_limits<std::uint32_t>::max();

  const std::uint64_t number_ = next_recorder();
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<std::uint64_t> cycles_{0};
  std::atomic<bool> finished_{false};
  std::atomic<int> error_{0};  // of the first write that failed, as errno
  std::atomic<bool> reported_{false};
  const pid_t process_ = getpid();
  std::mutex finish_mutex_;

  mutable std::mutex mutex_;  // guards all below; taken after a buffer's own lock
  Slab<RecorderNode> nodes_;
  std::vector<std::shared_ptr<ThreadBuffer>> buffers_;
  std::uint32_t threads_ = 0;
  std::uint32_t unbuffered_thread_ = no_thread;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::vector<std::byte> chunk_;  // what is about to be written
  std::uint64_t events_written_ = 0;
};

Recorder::Recorder(Ref<Resource> upstream, const std::filesystem::path& file)
    : Stage(std::move(upstream)), impl_(std::make_unique<Impl>(this, file)) {}

Recorder::~Recorder() = default;

void Recorder::abandoned() noexcept {
  finish();
  unpin();
}

void Recorder::cycle() noexcept {
  impl_->record(impl_->buffer(), {.id = impl_->next_cycle(), .operation = Operation::cycle});
  Stage::cycle();
}

// What came back is what the upstream no longer knows as live.
std::size_t Recorder::reset() noexcept {
  const std::size_t blocks = upstream().reset();
  RecorderNode* ended = nullptr;
  std::size_t kept = 0;
  impl_->each_node([&](RecorderNode& node) {
    const std::uint64_t life = node.generation.load(std::memory_order_acquire);
    if ((life & 1U) == 0) return;
    if (upstream().is_live(node.upstream)) {
      ++kept;
    } else if (node.end_life(life)) {
      node.next_free = std::exchange(ended, &node);
    }
  });
  ThreadBuffer* buffer = impl_->buffer();
  if (kept == 0 && ended != nullptr) impl_->record(buffer, {.operation = Operation::reset});
  while (ended != nullptr) {
    RecorderNode& node = *std::exchange(ended, ended->next_free);
    if (kept > 0 && node.id != 0) impl_->record(buffer, death_of(node, node.stream));
    impl_->live.freed(node.upstream);
    impl_->put_node(buffer, &node);
    unpin();
  }
  impl_->record(buffer, {.id = impl_->next_cycle(), .operation = Operation::cycle});
  return blocks;
}

bool Recorder::finish() noexcept {
  return impl_->finish();
}

Expected<Block> Recorder::try_allocate(const Request& request) noexcept {
  return record_allocation(request, [&] { return upstream().try_allocate(request); });
}

Expected<Block> Recorder::try_allocate_held(const Request& request) noexcept {
  return record_allocation(request, [&] { return upstream().try_allocate_held(request); });
}

template <class Ask>
Expected<Block> Recorder::record_allocation(const Request& request, Ask&& ask) noexcept {
  if (request.bytes == 0) return Block{};
  ThreadBuffer* buffer = impl_->buffer();
  RecorderNode* node = impl_->take_node(buffer);
  if (node == nullptr) {
    impl_->live.failed();
    return tl::unexpected(failure("trace", Errc::out_of_memory, request.bytes));
  }
  const Expected<Block> below = ask();
  if (!below) {
    impl_->put_node(buffer, node);
    impl_->live.failed();
    return below;
  }
  node->upstream = *below;
  return impl_->hand_out(*node, request, buffer, pin());
}

Expected<void> Recorder::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  return record_batch(requests, blocks,
                      [&] { return upstream().try_allocate_batch(requests, blocks); });
}

Expected<void> Recorder::try_allocate_held_batch(std::span<const Request> requests,
                                                 std::span<Block> blocks) noexcept {
  return record_batch(requests, blocks,
                      [&] { return upstream().try_allocate_held_batch(requests, blocks); });
}

// Recorded one by one, in their order.
template <class Ask>
Expected<void> Recorder::record_batch(std::span<const Request> requests, std::span<Block> blocks,
                                      Ask&& ask) noexcept {
  if (bytes_of(requests) == 0) {
    std::ranges::fill(blocks, Block{});
    return {};
  }
  Expected<void> below = ask();
  ThreadBuffer* buffer = impl_->buffer();
  if (below && !impl_->take_nodes(buffer, blocks)) {
    for (std::size_t i = 0; i < requests.size(); ++i)
      upstream().deallocate(blocks[i], requests[i].stream);
    below = fail_batch(blocks, failure("trace", Errc::out_of_memory, bytes_of(requests)), 0);
  }
  if (!below) {
    impl_->live.failed();
    return below;
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (!blocks[i].empty()) {
      auto* node = static_cast<RecorderNode*>(blocks[i].node);
      blocks[i] = impl_->hand_out(*node, requests[i], buffer, pin());
    }
  }
  return {};
}

bool Recorder::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  if (!block.node->names(block, this) || !block.node->end_life(block.generation)) {
    impl_->live.refused();
    return refuse_free("trace", block);
  }
  auto* node = static_cast<RecorderNode*>(block.node);
  const Block below = node->upstream;
  ThreadBuffer* buffer = impl_->buffer();
  if (node->id != 0)
    impl_->record(buffer, death_of(*node, stream.id));  // before the memory can be granted again
  impl_->live.freed(block);
  impl_->put_node(buffer, node);
  upstream().deallocate(below, stream);
  unpin();
  return true;
}

// Freed before it is allocated anew: the two were never live together.
Expected<Block> Recorder::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return Stage::try_grow(block, bytes);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("trace", Errc::invalid_block, block.bytes));
  auto* node = static_cast<RecorderNode*>(block.node);
  const Expected<Block> grown = upstream().try_grow(node->upstream, bytes);
  if (!grown) return grown;
  impl_->live.grew(node->upstream, *grown);
  ThreadBuffer* buffer = impl_->buffer();
  if (node->id != 0) impl_->record(buffer, death_of(*node, node->stream));
  node->upstream = *grown;
  node->granted.store(grown->bytes, std::memory_order_relaxed);
  node->id = impl_->record(buffer, birth_of(*node));
  Block handle = *grown;
  handle.node = node;
  handle.generation = node->renew_life();
  return handle;
}

Expected<void> Recorder::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  if (!block.node->names(block, this))
    return tl::unexpected(failure("trace", Errc::invalid_block, block.bytes));
  return upstream().also_used_on(static_cast<RecorderNode*>(block.node)->upstream, stream);
}

Stats Recorder::stats() const noexcept {
  Stats stats = upstream().stats();
  impl_->live.write_to(stats, pinned());
  return stats;
}

void Recorder::reset_peaks(const Stats& floor) noexcept {
  impl_->live.reset_peaks(floor, pinned());
  Stage::reset_peaks(floor);
}

Outstanding Recorder::outstanding() const noexcept {
  Outstanding out;
  impl_->each_node([&](const RecorderNode& node) {
    if (node.is_live()) out.add(node.granted.load(std::memory_order_relaxed));
  });
  return out;
}

std::string Recorder::validate() const {
  const Outstanding live = outstanding();
  const Stats own = stats();
  if (own.live_blocks.current != live.blocks)
    return "trace: live_blocks is the number of live nodes";
  if (own.live_granted.current != live.bytes)
    return "trace: live_granted is the sum of the live nodes";
  return Stage::validate();
}

}  // namespace cistern
