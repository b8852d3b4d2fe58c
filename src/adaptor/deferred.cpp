#include "cistern/adaptor/deferred.hpp"

#include <array>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "core/failure.hpp"

namespace cistern {
namespace {

/// What whoever asks for the device is given where there is none.
class NoDevice final : public Device {
 public:
  NoDevice() : Device(DeviceLimits{.kind = "deferred", .name = "a device that cannot be set up"}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t /*alignment*/,
                         Stream /*stream*/) noexcept override {
    return tl::unexpected(fail(Errc::device_failed, bytes));
  }
  void give_back(Piece /*piece*/, Stream /*stream*/) noexcept override {}
};

/// Why something could not be made, kept without allocating: memory may be what is missing.
class Reason {
 public:
  void set(const char* text) noexcept { std::snprintf(text_.data(), text_.size(), "%s", text); }
  [[nodiscard]] const char* text() const noexcept { return text_.data(); }

 private:
  std::array<char, 200> text_{};
};

/// Null if it cannot be made.
Ref<Resource> attempt(const Deferred::SetUp& make, Reason& why_not) noexcept {
  try {
    Ref<Resource> stack = make();
    if (!stack) why_not.set("there is no such resource");
    return stack;
  } catch (const std::exception& error) {
    why_not.set(error.what());
  } catch (...) {
    why_not.set("what was thrown says not why");
  }
  return {};
}

Error no_stack(std::size_t bytes) noexcept {
  return {.code = Errc::device_failed, .stage = "deferred", .requested = bytes};
}

}  // namespace

Deferred::Deferred(SetUp stack, SetUp otherwise)
    : no_device_(make<NoDevice>()),
      stack_choice_(std::move(stack)),
      otherwise_(std::move(otherwise)) {
  if (!stack_choice_ || !otherwise_)
    throw std::invalid_argument("a deferred stack needs two ways to make one, but was given fewer");
}

Deferred::~Deferred() {
  if (ends_with_stack_) static_cast<void>(owned_.detach());
}

// False if there is a stack by now, or if this very thread is at it: what is being made asks for
// itself, which cannot be answered.
bool Deferred::begin_set_up() const noexcept {
  std::unique_lock lock(mutex_);
  if (maker_ == std::this_thread::get_id()) return false;
  is_done_.wait(lock, [&] { return maker_ == std::thread::id(); });
  if (stack() != nullptr) return false;
  maker_ = std::this_thread::get_id();
  return true;
}

void Deferred::end_set_up(Ref<Resource> stack) const noexcept {
  const std::lock_guard lock(mutex_);
  owned_ = std::move(stack);
  stack_.store(owned_.get(), std::memory_order_release);
  maker_ = {};
  is_done_.notify_all();
}

// What is called here may take long, report, or ask for memory: no lock is held meanwhile.
Resource* Deferred::set_up() const noexcept {
  if (Resource* const stack = this->stack()) [[likely]]
    return stack;
  if (!begin_set_up()) return this->stack();
  Reason why_not;
  Reason nor_the_other;
  Ref<Resource> made = attempt(stack_choice_, why_not);
  const bool first_failed = !made;
  if (first_failed) made = attempt(otherwise_, nor_the_other);
  const bool any_made = static_cast<bool>(made);
  if (any_made) stack_choice_ = otherwise_ = nullptr;  // and what they held
  const bool is_news = first_failed && (any_made || !std::exchange(told_of_failure_, true));
  end_set_up(std::move(made));
  if (is_news && any_made) {
    report("a deferred stack could not be set up, and another takes its place: %s", why_not.text());
  } else if (is_news) {
    report("a deferred stack could not be set up (%s), nor could the other (%s)", why_not.text(),
           nor_the_other.text());
  }
  return this->stack();
}

Expected<Block> Deferred::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  Resource* const stack = set_up();
  if (stack != nullptr) [[likely]]
    return stack->try_allocate(request);
  failures_.fetch_add(1, std::memory_order_relaxed);
  return tl::unexpected(no_stack(request.bytes));
}

Expected<void> Deferred::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  const std::size_t bytes = bytes_of(requests);
  Resource* const stack = bytes > 0 ? set_up() : nullptr;
  if (stack != nullptr) [[likely]]
    return stack->try_allocate_batch(requests, blocks);
  if (bytes > 0) {
    failures_.fetch_add(1, std::memory_order_relaxed);
    return fail_batch(blocks, no_stack(bytes), 0);
  }
  std::ranges::fill(blocks, Block{});
  return {};
}

bool Deferred::is_live(const Block& block) const noexcept {
  const Resource* const home = stack();
  return home != nullptr && home->is_live(block);
}

bool Deferred::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  Resource* const home = stack();
  if (home != nullptr) [[likely]]
    return home->deallocate(block, stream);
  refused_frees_.fetch_add(1, std::memory_order_relaxed);
  return refuse_free("deferred", block);
}

Expected<Block> Deferred::try_grow(const Block& block, std::size_t bytes) noexcept {
  Resource* const home = stack();
  if (home == nullptr) return tl::unexpected(failure("deferred", Errc::invalid_block, block.bytes));
  return home->try_grow(block, bytes);
}

Expected<void> Deferred::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  Resource* const home = this->stack();
  if (home == nullptr) return tl::unexpected(failure("deferred", Errc::invalid_block, block.bytes));
  return home->also_used_on(block, stream);
}

void Deferred::cycle() noexcept {
  if (Resource* const stack = this->stack()) stack->cycle();
}

Stats Deferred::stats() const noexcept {
  const Resource* const stack = this->stack();
  Stats stats = stack != nullptr ? stack->stats() : Stats{};
  stats.failures += failures_.load(std::memory_order_relaxed);
  stats.refused_frees += refused_frees_.load(std::memory_order_relaxed);
  return stats;
}

void Deferred::reset_peaks(const Stats& floor) noexcept {
  if (Resource* const stack = this->stack()) stack->reset_peaks(floor);
}

std::vector<BucketStats> Deferred::buckets() const {
  const Resource* const stack = this->stack();
  return stack != nullptr ? stack->buckets() : std::vector<BucketStats>{};
}

Outstanding Deferred::outstanding() const noexcept {
  const Resource* const stack = this->stack();
  return stack != nullptr ? stack->outstanding() : Outstanding{};
}

Device& Deferred::device() const noexcept {
  const Resource* const stack = set_up();
  return stack != nullptr ? stack->device() : *no_device_;
}

std::size_t Deferred::largest_after(const Supposition& supposed) const noexcept {
  const Resource* const stack = set_up();
  return stack != nullptr ? stack->largest_after(supposed) : 0;
}

void Deferred::explain(Shortage& shortage) const noexcept {
  const Resource* const stack = this->stack();
  (stack != nullptr ? *stack : *no_device_).explain(shortage);
}

void Deferred::each_upstream(const std::function<void(Resource&)>& visit) const {
  if (Resource* const stack = this->stack()) visit(*stack);
}

std::string Deferred::validate() const {
  const Resource* const stack = this->stack();
  return stack != nullptr ? stack->validate() : "";
}

void Deferred::trim_to(std::size_t keep_bytes) noexcept {
  if (Resource* const stack = this->stack()) stack->trim(keep_bytes);
}

// The stack knows which block is the last, and ends this with it.
void Deferred::abandoned() noexcept {
  Resource* const stack = this->stack();
  if (stack == nullptr || stack->outstanding().blocks == 0) {
    unpin();
  } else {
    ends_with_stack_ = true;
    end_with(*stack);
  }
}

}  // namespace cistern
