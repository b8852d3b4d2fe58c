// Tells the device to keep memory resident as long as it is handed out. In the stack language:
// `resident`, usually below a pool (`cache > resident > opencl`): a block is made resident once,
// when it is obtained from the device, and stays so while it is idle in the pool. A batch is made
// resident in one commit.
//
// A device that does not take the hint gives its memory all the same: `residency_refusals` counts
// that, and `Residency::last_refusal` says why.
#pragma once

#include <span>
#include <string>

#include "cistern/core/block_records.hpp"
#include "cistern/core/residency.hpp"
#include "cistern/core/stage.hpp"

namespace cistern {

class Resident final : public Stage {
 public:
  /// Throws std::invalid_argument if `upstream` is null, if it stands on more than one device, or
  /// if its device has no residency.
  explicit Resident(Ref<Resource> upstream);

  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  static Residency& residency_of(const Resource& upstream);

  void make_resident(std::span<const Block> blocks) noexcept;
  void abandoned() noexcept override;

  Residency& residency_;
  BlockRecords records_{this};
};

}  // namespace cistern
