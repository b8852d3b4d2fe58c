// Shared ownership of resources. `make<Cache>(make<HostDevice>())` builds a stack outermost first,
// as its text would read; stages hold their upstream by `Ref`, so an upstream may serve several
// stages and outlives them all.
#pragma once

#include <concepts>
#include <utility>

#include "cistern/core/resource.hpp"

namespace cistern {

/// A counted reference to a resource; null after it was moved from. Copying and destroying are
/// thread-safe, one `Ref` object used by several threads at once is not.
template <class T>
class Ref {
 public:
  Ref() noexcept = default;
  explicit Ref(T* resource) noexcept : resource_(resource) {
    if (resource_ != nullptr) resource_->retain();
  }
  Ref(const Ref& other) noexcept : Ref(other.resource_) {}
  Ref(Ref&& other) noexcept : resource_(std::exchange(other.resource_, nullptr)) {}
  template <class U>
  requires std::convertible_to<U*, T*> Ref(const Ref<U>& other)
  noexcept : Ref(other.get()) {}  // NOLINT(google-explicit-constructor): as a pointer converts
  template <class U>
  requires std::convertible_to<U*, T*> Ref(Ref<U>&& other)
  noexcept : resource_(other.detach()) {}  // NOLINT(google-explicit-constructor)
  Ref& operator=(Ref other) noexcept {
    std::swap(resource_, other.resource_);
    return *this;
  }
  ~Ref() {
    if (resource_ != nullptr) resource_->release();
  }

  [[nodiscard]] T* get() const noexcept { return resource_; }
  T& operator*() const noexcept { return *resource_; }
  T* operator->() const noexcept { return resource_; }
  explicit operator bool() const noexcept { return resource_ != nullptr; }

  /// A reference to a resource that still has an owner, else null. The resource must not be
  /// destroyed meanwhile.
  [[nodiscard]] static Ref if_owned(T* resource) noexcept {
    Ref owned;
    if (resource->try_retain()) owned.resource_ = resource;
    return owned;
  }

  /// Hands the reference over to the caller, who must release it.
  [[nodiscard]] T* detach() noexcept { return std::exchange(resource_, nullptr); }

 private:
  T* resource_ = nullptr;
};

/// Makes a resource: the one way, since resources destroy themselves. Throws what the constructor
/// throws.
template <class T, class... Arguments>
[[nodiscard]] Ref<T> make(Arguments&&... arguments) {
  Ref<T> made(new T(std::forward<Arguments>(arguments)...));
  static_cast<Resource&>(*made).opened();
  return made;
}

}  // namespace cistern
