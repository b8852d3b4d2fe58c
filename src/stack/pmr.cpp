#include "cistern/stack/pmr.hpp"

#include <algorithm>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"

namespace cistern {

PmrResource::PmrResource(Ref<Resource> resource) : resource_(std::move(resource)) {
  if (!resource_) throw std::invalid_argument("pmr: there is no resource to allocate from");
  const DeviceLimits& limits = resource_->device().limits();
  if (!limits.host_addressable) {
    throw std::invalid_argument(std::string("pmr: the CPU cannot use the memory of the device ") +
                                limits.kind);
  }
}

PmrResource::~PmrResource() {
  blocks_.drain([this](const AddressMap::Entry& entry) { resource_->deallocate(entry.block); });
}

void* PmrResource::do_allocate(std::size_t bytes, std::size_t alignment) {
  const Block block = resource_->allocate(
      Request{.bytes = std::max(bytes, std::size_t{1}), .alignment = alignment});
  if (!blocks_.insert(block)) {
    resource_->deallocate(block);
    throw std::bad_alloc();
  }
  return block.memory;
}

void PmrResource::do_deallocate(void* pointer, std::size_t /*bytes*/, std::size_t /*alignment*/) {
  const std::optional<AddressMap::Entry> entry = blocks_.take(pointer);
  if (entry) {
    resource_->deallocate(entry->block);
  } else {
    report("pmr refused to free %p: freed before, or not allocated here", pointer);
  }
}

bool PmrResource::do_is_equal(const memory_resource& other) const noexcept {
  return this == &other;
}

}  // namespace cistern
