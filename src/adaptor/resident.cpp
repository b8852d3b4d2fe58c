#include "cistern/adaptor/resident.hpp"

#include <stdexcept>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/device.hpp"
#include "core/failure.hpp"

namespace cistern {
namespace {

bool stands_only_on(const Resource& stage, const Device& device) {
  bool only = &stage.device() == &device;
  stage.each_upstream([&](const Resource& below) { only = only && stands_only_on(below, device); });
  return only;
}

}  // namespace

Resident::Resident(Ref<Resource> upstream)
    : Stage(std::move(upstream)), residency_(residency_of(this->upstream())) {}

Residency& Resident::residency_of(const Resource& upstream) {
  Device& device = upstream.device();
  Residency* const residency = device.residency();
  if (residency == nullptr) {
    throw std::invalid_argument(std::string("resident: the device ") + device.limits().kind +
                                " cannot be told to keep memory resident");
  }
  if (!stands_only_on(upstream, device))
    throw std::invalid_argument("resident: below it is one device, whose memory it is");
  return *residency;
}

Expected<Block> Resident::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  const Expected<Block> below = upstream().try_allocate(request);
  if (!below) {
    records_.count_failure();
    return below;
  }
  const std::optional<Block> block = records_.hand_out(*below);
  if (!block) {  // the host has no memory for the record
    upstream().deallocate(*below, request.stream);
    records_.count_failure();
    return tl::unexpected(failure("resident", Errc::out_of_memory, request.bytes));
  }
  make_resident({&*block, 1});
  return *block;
}

Expected<void> Resident::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  const std::size_t bytes = bytes_of(requests);
  if (bytes == 0) {
    std::ranges::fill(blocks, Block{});
    return {};
  }
  Expected<void> below = upstream().try_allocate_batch(requests, blocks);
  if (below && !records_.hand_out(blocks)) {
    for (std::size_t i = 0; i < requests.size(); ++i)
      upstream().deallocate(blocks[i], requests[i].stream);
    below = fail_batch(blocks, failure("resident", Errc::out_of_memory, bytes), 0);
  }
  if (!below) {
    records_.count_failure();
    return below;
  }
  make_resident(blocks);
  return {};
}

// A hint that is refused is no failure of the request: the device counts it and keeps the reason.
void Resident::make_resident(std::span<const Block> blocks) noexcept {
  static_cast<void>(residency_.make_resident(blocks));
}

bool Resident::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr) {
    records_.count_refused_free();
    return refuse_free("resident", block);
  }
  residency_.end_residency({&record->below, 1});
  upstream().deallocate(record->below, stream);
  if (records_.end(*record)) delete this;
  return true;
}

// The part that is resident is another one then; it is ended first so that no byte counts twice.
Expected<Block> Resident::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return Stage::try_grow(block, bytes);
  BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr)
    return tl::unexpected(failure("resident", Errc::invalid_block, block.bytes));
  const Block before = record->below;
  const Expected<Block> grown = upstream().try_grow(before, bytes);
  if (!grown) return grown;
  if (grown->bytes > before.bytes) {
    residency_.end_residency({&before, 1});
    make_resident({&*grown, 1});
  }
  return records_.grow(*record, *grown);
}

Expected<void> Resident::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr)
    return tl::unexpected(failure("resident", Errc::invalid_block, block.bytes));
  return upstream().also_used_on(record->below, stream);
}

Stats Resident::stats() const noexcept {
  Stats stats = upstream().stats();
  stats.take_outermost_figures(records_.stats());
  return stats;
}

void Resident::reset_peaks(const Stats& floor) noexcept {
  records_.reset_peaks(floor);
  Stage::reset_peaks(floor);
}

Outstanding Resident::outstanding() const noexcept {
  return records_.outstanding();
}

std::string Resident::validate() const {
  if (const char* law = records_.validate(); law != nullptr) return std::string("resident: ") + law;
  return Stage::validate();
}

void Resident::abandoned() noexcept {
  if (records_.abandon()) delete this;
}

}  // namespace cistern
