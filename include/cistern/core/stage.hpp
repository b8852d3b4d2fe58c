// What all stages above a device share: an upstream, and passing on what does not concern them.
// Pools and adaptors derive from it and override what they do themselves.
//
// A stage that only passes blocks on, unchanged, needs no record of them. One that counts them, or
// hands out another part of the upstream's block than it was given, hands out a `Node` of its own,
// so that a block always comes back the way it went out.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cistern/core/ref.hpp"
#include "cistern/core/resource.hpp"

namespace cistern {

class Stage : public Resource {
 public:
  [[nodiscard]] Resource& upstream() const noexcept { return *upstream_; }

  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override {
    return upstream_->try_grow(block, bytes);
  }
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override {
    return upstream_->also_used_on(block, stream);
  }
  void cycle() noexcept override { upstream_->cycle(); }
  std::size_t reset() noexcept override { return upstream_->reset(); }
  [[nodiscard]] Stats stats() const noexcept override { return upstream_->stats(); }
  using Resource::deallocate;
  using Resource::reset_peaks;
  void reset_peaks(const Stats& floor) noexcept override { upstream_->reset_peaks(floor); }
  [[nodiscard]] std::vector<BucketStats> buckets() const override { return upstream_->buckets(); }
  [[nodiscard]] Outstanding outstanding() const noexcept override {
    return upstream_->outstanding();
  }
  [[nodiscard]] Device& device() const noexcept override { return upstream_->device(); }
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override {
    return upstream_->largest_after(supposed);
  }
  void explain(Shortage& shortage) const noexcept override { upstream_->explain(shortage); }
  void each_upstream(const std::function<void(Resource&)>& visit) const override {
    visit(*upstream_);
  }
  [[nodiscard]] std::string validate() const override { return upstream_->validate(); }

 protected:
  explicit Stage(Ref<Resource> upstream) : upstream_(std::move(upstream)) {
    if (!upstream_) throw std::invalid_argument("a stage needs an upstream, but was given none");
  }

  ~Stage() override {
    if (ends_with_upstream_) static_cast<void>(upstream_.detach());
  }

  /// `abandoned` of a stage that passes blocks through: it cannot know which is the last, but its
  /// upstream does, and ends with it.
  void end_with_upstream() noexcept {
    if (upstream_->outstanding().blocks == 0) {
      unpin();
    } else {
      ends_with_upstream_ = true;
      end_with(*upstream_);
    }
  }

  void trim_to(std::size_t keep_bytes) noexcept override { trim_upstream(keep_bytes); }
  void trim_upstream(std::size_t keep_bytes) noexcept { upstream_->trim_to(keep_bytes); }

 private:
  Ref<Resource> upstream_;
  bool ends_with_upstream_ = false;
};

/// The outermost stage of that type in a stack, or null: how a program reaches a stage of a stack
/// that was opened from a text.
template <class T>
[[nodiscard]] T* find_stage(Resource& outermost) {
  auto* found = dynamic_cast<T*>(&outermost);
  if (found != nullptr) return found;
  outermost.each_upstream([&](Resource& upstream) {
    if (found == nullptr) found = find_stage<T>(upstream);
  });
  return found;
}

}  // namespace cistern
