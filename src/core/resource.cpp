#include "cistern/core/resource.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"

namespace cistern {
namespace {

/// What a batch asks for in all, for the report of its failure.
Request sum_of(std::span<const Request> requests) noexcept {
  Request sum{.bytes = bytes_of(requests)};
  for (const Request& request : requests)
    sum.alignment = std::max(sum.alignment, request.alignment);
  return sum;
}

}  // namespace

bool Resource::is_live(const Block& block) const noexcept {
  return !block.empty() && block.node->names(block, this);
}

Expected<Block> Resource::try_grow(const Block& /*block*/, std::size_t bytes) noexcept {
  return tl::unexpected(
      Error{.code = Errc::cannot_grow, .stage = device().limits().kind, .requested = bytes});
}

Expected<void> Resource::allocate_each(std::span<const Request> requests, std::span<Block> blocks,
                                       AskForOne ask) noexcept {
  assert(requests.size() == blocks.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Expected<Block> block = (this->*ask)(requests[i]);
    if (!block) {
      for (std::size_t granted = 0; granted < i; ++granted)
        deallocate(blocks[granted], requests[granted].stream);
      return fail_batch(blocks, block.error(), bytes_of(requests.subspan(i + 1)));
    }
    blocks[i] = *block;
  }
  return {};
}

Expected<void> Resource::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  return allocate_each(requests, blocks, &Resource::try_allocate);
}

std::vector<Block> Resource::allocate_batch(std::span<const Request> requests) {
  std::vector<Block> blocks(requests.size());
  const Expected<void> done = try_allocate_batch(requests, blocks);
  if (!done) throw_out_of_memory(sum_of(requests), done.error());
  return blocks;
}

std::vector<Block> Resource::allocate_held_batch(std::span<const Request> requests) {
  std::vector<Block> blocks(requests.size());
  const Expected<void> done = try_allocate_held_batch(requests, blocks);
  if (!done) throw_out_of_memory(sum_of(requests), done.error());
  return blocks;
}

std::size_t Resource::trim(std::size_t keep_bytes) noexcept {
  const std::size_t before = stats().reserved.current;
  trim_to(keep_bytes);
  return saturating_subtract(before, stats().reserved.current);
}

bool Resource::try_retain() noexcept {
  std::size_t owners = owners_.load(std::memory_order_relaxed);
  do {
    if (owners == 0) return false;
  } while (!owners_.compare_exchange_weak(owners, owners + 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
  return true;
}

void Resource::release() noexcept {
  if (owners_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const Outstanding out = outstanding();
  if (out.blocks > 0) {
    report(
        "a stack on %s was closed with blocks still out: %zu, of %zu bytes in all, the largest of "
        "%zu",
        device().limits().kind, out.blocks, out.bytes, out.largest);
  }
  close();
}

void Resource::close() noexcept {
  closing();
  abandoned();
}

void Resource::end_with(Resource& upstream) noexcept {
  next_to_end_ = upstream.last_to_end_.load(std::memory_order_relaxed);
  while (!upstream.last_to_end_.compare_exchange_weak(next_to_end_, this, std::memory_order_release,
                                                      std::memory_order_relaxed)) {
  }
  // What is still out was reported when this resource was closed.
  if (upstream.owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) upstream.close();
}

Resource::~Resource() {
  for (Resource* each = last_to_end_.load(std::memory_order_acquire); each != nullptr;)
    delete std::exchange(each, each->next_to_end_);
}

bool Resource::stands_on(const Resource& other) const {
  bool found = this == &other;
  each_upstream([&](const Resource& upstream) { found = found || upstream.stands_on(other); });
  return found;
}

void Resource::throw_out_of_memory(const Request& request, const Error& error) const {
  throw OutOfMemory(explain_failure(*this, request, error));
}

bool Resource::refuse_free(const char* stage, const Block& block) noexcept {
  report("%s refused to free a block of %zu bytes: freed before, or not this resource's", stage,
         block.bytes);
  return false;
}

}  // namespace cistern
