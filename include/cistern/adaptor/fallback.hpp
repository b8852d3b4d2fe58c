// Two upstreams: the second takes what the first cannot. Blocks find their way home, and the figure
// `spilled` says how much lives elsewhere than in the first. In the stack language:
// `fallback(stack, otherwise)`.
//
// Whatever the first answers, the second is asked: a device that is full, too small for the request
// or broken, a bound. Both must give memory of a kind that the program can use: what it is told of
// the device is the first's.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cistern/core/block_records.hpp"
#include "cistern/core/ref.hpp"
#include "cistern/core/resource.hpp"

namespace cistern {

class Fallback final : public Resource {
 public:
  /// Throws std::invalid_argument if one of them is null.
  Fallback(Ref<Resource> first, Ref<Resource> second);

  [[nodiscard]] Resource& first() const noexcept { return *first_; }
  [[nodiscard]] Resource& second() const noexcept { return *second_; }

  /// Where both fail, the error is the first's, unless only the second's is an exhaustion, which
  /// giving memory back may help.
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  using Resource::deallocate;
  using Resource::reset_peaks;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  void cycle() noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] std::vector<BucketStats> buckets() const override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] Device& device() const noexcept override { return first_->device(); }
  /// Blocks that are supposed to come back may be either's, and so are nobody's: a lower bound.
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  void each_upstream(const std::function<void(Resource&)>& visit) const override;
  [[nodiscard]] std::string validate() const override;

 private:
  [[nodiscard]] Request for_second(Request request) const noexcept;
  Expected<Block> hand_out(const Block& below, bool spilled) noexcept;
  [[nodiscard]] Resource& home_of(const BlockRecords::Record& record) const noexcept {
    return record.spilled ? *second_ : *first_;
  }
  void trim_to(std::size_t keep_bytes) noexcept override;
  void abandoned() noexcept override;

  const Ref<Resource> first_;
  const Ref<Resource> second_;
  BlockRecords records_{this};

  mutable std::mutex floor_mutex_;
  Stats floor_;  // peaks that are not below these, since the upstreams' were reset
};

}  // namespace cistern
