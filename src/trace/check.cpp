#include "cistern/trace/check.hpp"

#include <bit>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "trace/untrusted_hash.hpp"

namespace cistern {
namespace {

/// Follows a trace and says, as a text, which law a step breaks.
class Laws {
 public:
  using Broken = std::optional<std::string>;

  explicit Laws(const Trace& trace) {
    blocks_.reserve(trace.initial_blocks.size() + trace.events.size() / 2);
  }

  Broken adopt(const InitialBlock& block) {
    return begin_block(block.id, block.bytes, block.alignment);
  }

  Broken step(const Event& event) {
    if (last_sequence_ && event.sequence <= *last_sequence_) {
      return fmt::format("sequence {} does not rise above {}, that of the event before",
                         event.sequence, *last_sequence_);
    }
    last_sequence_ = event.sequence;
    switch (event.operation) {
      case Operation::allocate:
        return begin_block(event.id, event.bytes, event.alignment);
      case Operation::free:
        return end_block(event);
      case Operation::reset:
        reset();
        return check_alignment(event.alignment);
      case Operation::cycle:
        return check_alignment(event.alignment);
    }
    return fmt::format("operation {} is none of allocate, free, reset and cycle",
                       static_cast<unsigned>(event.operation));
  }

 private:
  struct Block {
    std::uint64_t bytes;
    std::uint64_t resets_before;
    bool freed;
  };

  static Broken check_alignment(std::uint64_t alignment) {
    if (alignment == 0 || std::has_single_bit(alignment)) return std::nullopt;
    return fmt::format("alignment {} is neither 0 nor a power of two", alignment);
  }

  Broken begin_block(std::uint64_t id, std::uint64_t bytes, std::uint64_t alignment) {
    if (!blocks_.try_emplace(id, Block{bytes, resets_, false}).second) {
      return fmt::format("id {} was used before: each block has an id of its own", id);
    }
    if (bytes > std::numeric_limits<std::uint64_t>::max() - live_bytes_) {
      return fmt::format("{} bytes beside {} live ones are more than 64 bits can count", bytes,
                         live_bytes_);
    }
    live_bytes_ += bytes;
    return check_alignment(alignment);
  }

  Broken end_block(const Event& event) {
    const auto found = blocks_.find(event.id);
    if (found == blocks_.end())
      return fmt::format("frees block {}, which was never allocated", event.id);
    Block& block = found->second;
    if (block.freed) return fmt::format("frees block {}, which was freed before", event.id);
    if (block.resets_before != resets_)
      return fmt::format("frees block {}, which a reset freed before", event.id);
    if (block.bytes != event.bytes) {
      return fmt::format("frees {} bytes of block {}, which has {}", event.bytes, event.id,
                         block.bytes);
    }
    block.freed = true;
    live_bytes_ -= block.bytes;
    return check_alignment(event.alignment);
  }

  // Blocks remember how many resets came before them, so that a reset need not visit them all.
  void reset() {
    ++resets_;
    live_bytes_ = 0;
  }

  detail::UntrustedMap<Block> blocks_;
  std::optional<std::uint64_t> last_sequence_;
  std::uint64_t resets_ = 0;
  std::uint64_t live_bytes_ = 0;
};

}  // namespace

tl::expected<void, TraceError> check_trace(const Trace& trace) {
  Laws laws(trace);
  const auto broken = [&](TraceError::Unit unit, std::size_t position, std::string law) {
    return tl::unexpected(TraceError{trace.name, unit, position, std::move(law)});
  };
  for (std::size_t index = 0; index < trace.initial_blocks.size(); ++index) {
    if (auto law = laws.adopt(trace.initial_blocks[index])) {
      return broken(TraceError::Unit::initial_block, index, *std::move(law));
    }
  }
  for (std::size_t index = 0; index < trace.events.size(); ++index) {
    if (auto law = laws.step(trace.events[index])) {
      return broken(TraceError::Unit::event, index, *std::move(law));
    }
  }
  return {};
}

}  // namespace cistern
