// A stack as a std::pmr::memory_resource, so that the standard containers can live in it. The
// opposite, a memory resource as the device of a stack, is `device/pmr.hpp`.
#pragma once

#include <cstddef>
#include <memory_resource>

#include "cistern/core/address_map.hpp"
#include "cistern/core/ref.hpp"

namespace cistern {

/// Thread-safe. Containers free by pointer alone, so each call pays for a look-up of the address as
/// well.
class PmrResource final : public std::pmr::memory_resource {
 public:
  /// Throws std::invalid_argument if `resource` is null or its memory cannot be read and written by
  /// the CPU.
  explicit PmrResource(Ref<Resource> resource);

  /// Gives back what has not been deallocated: containers must not outlive the resource that they
  /// allocate from.
  ~PmrResource() override;

  PmrResource(const PmrResource&) = delete;
  PmrResource& operator=(const PmrResource&) = delete;
  PmrResource(PmrResource&&) = delete;
  PmrResource& operator=(PmrResource&&) = delete;

  [[nodiscard]] Resource& resource() const noexcept { return *resource_; }

 private:
  /// Throws `OutOfMemory`, which is a std::bad_alloc. Zero bytes are a block of one, since every
  /// pointer is distinct.
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;

  /// A pointer that is not a live allocation of this resource is reported and otherwise left alone.
  void do_deallocate(void* pointer, std::size_t bytes, std::size_t alignment) override;

  [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override;

  Ref<Resource> resource_;
  AddressMap blocks_;
};

}  // namespace cistern
