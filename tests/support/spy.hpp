// A stage that notes what passes through it: what a pool or an adaptor asks of its upstream, what
// it gives back, and in whose order.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "cistern/core/size.hpp"
#include "cistern/core/stage.hpp"

namespace cistern::testing {

inline bool is_same_block(const Block& a, const Block& b) {
  return a.memory == b.memory && a.offset == b.offset && a.bytes == b.bytes && a.node == b.node &&
         a.generation == b.generation;
}

/// Its notes are read while nobody calls it.
class Spy final : public Stage {
 public:
  struct Use {
    Block block;
    Stream stream;
  };

  /// Blocks start `offset` bytes behind the start of the upstream's.
  explicit Spy(Ref<Resource> upstream, std::size_t offset = 0)
      : Stage(std::move(upstream)), offset_(offset) {}

  /// Called before a request or a free is passed on; a request may be refused.
  std::function<std::optional<Errc>(const Request&)> before_request;
  std::function<void(const Block&)> before_free;

  std::vector<Request> requests;
  std::vector<Block> granted;
  std::vector<Use> freed;
  std::vector<Use> also_used;
  std::size_t cycles = 0;

  [[nodiscard]] Expected<Block> try_allocate(const Request& asked) noexcept override {
    Request request = asked;
    note(requests, request);
    const std::optional<Errc> refusal =
        before_request ? before_request(request) : std::optional<Errc>();
    if (refusal) {
      return tl::unexpected(Error{.code = *refusal,
                                  .stage = "spy",
                                  .requested = request.bytes,
                                  .available = std::size_t{}});
    }
    request.bytes = saturating_add(request.bytes, offset_);
    Expected<Block> block = upstream().try_allocate(request);
    if (!block) return block;
    block->offset += offset_;
    block->bytes -= offset_;
    block->requested -= offset_;
    note(granted, *block);
    return block;
  }
  using Stage::deallocate;
  bool deallocate(const Block& block, Stream stream) noexcept override {
    note(freed, {block, stream});
    if (before_free) before_free(block);
    return upstream().deallocate(below(block), stream);
  }
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override {
    note(also_used, {block, stream});
    return upstream().also_used_on(below(block), stream);
  }
  void cycle() noexcept override { ++cycles; }

 private:
  template <class T>
  void note(std::vector<T>& notes, const T& what) {
    const std::lock_guard lock(mutex_);
    notes.push_back(what);
  }
  [[nodiscard]] Block below(Block block) const {
    block.offset -= offset_;
    block.bytes += offset_;
    block.requested += offset_;
    return block;
  }

  const std::size_t offset_;
  std::mutex mutex_;
};

}  // namespace cistern::testing
