// A stack that is made at the first request, not before: on many devices to make anything costs a
// second and hundreds of megabytes, and some can only be used once the program has set them up. If
// it cannot be made another takes its place, and one report says why. In the stack language:
// `deferred(stack, otherwise)`.
//
// Threads that come at the same time wait for the one that sets it up. Blocks are passed through.
// Whoever asks for the device, such as a pool that is made on top, has the stack set up as well.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/core/ref.hpp"
#include "cistern/core/resource.hpp"

namespace cistern {

class Deferred final : public Resource {
 public:
  /// Makes a stack; may throw, which means that it cannot be made.
  using SetUp = std::function<Ref<Resource>()>;

  /// Throws std::invalid_argument if one of them is empty.
  Deferred(SetUp stack, SetUp otherwise);

  /// The stack, or null as long as nobody has needed it.
  [[nodiscard]] Resource* stack() const noexcept { return stack_.load(std::memory_order_acquire); }

  /// Where neither stack can be made, the error is device_failed, which counts as a failure and
  /// nothing else; the next request tries again.
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  using Resource::deallocate;
  using Resource::reset_peaks;
  [[nodiscard]] bool is_live(const Block& block) const noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  void cycle() noexcept override;
  /// All zero as long as there is no stack.
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] std::vector<BucketStats> buckets() const override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  /// Sets the stack up; where that fails, a device that gives nothing.
  [[nodiscard]] Device& device() const noexcept override;
  /// Sets the stack up too.
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  void each_upstream(const std::function<void(Resource&)>& visit) const override;
  [[nodiscard]] std::string validate() const override;

 private:
  ~Deferred() override;
  Resource* set_up() const noexcept;
  bool begin_set_up() const noexcept;
  void end_set_up(Ref<Resource> stack) const noexcept;
  void trim_to(std::size_t keep_bytes) noexcept override;
  void abandoned() noexcept override;

  const Ref<Device> no_device_;
  mutable std::atomic<Resource*> stack_{nullptr};
  std::atomic<std::uint64_t> failures_{0};  // of requests that met no stack
  std::atomic<std::uint64_t> refused_frees_{0};
  bool ends_with_stack_ = false;

  mutable std::mutex mutex_;                 // guards the three below
  mutable std::condition_variable is_done_;  // there is no maker
  mutable std::thread::id maker_;            // the thread that sets the stack up now
  mutable Ref<Resource> owned_;

  // The maker's own.
  mutable SetUp stack_choice_;
  mutable SetUp otherwise_;
  mutable bool told_of_failure_ = false;
};

}  // namespace cistern
