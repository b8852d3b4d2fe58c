// A doubly linked list through members of its elements: nothing is allocated to put an element in,
// and one can be taken out of the middle in O(1). Ordered by when elements were put in.
#pragma once

#include <cstddef>
#include <memory>

namespace cistern {

/// An element's place in one list.
template <class T>
struct ListLinks {
  T* older = nullptr;
  T* newer = nullptr;
};

template <class T, ListLinks<T> T::*links>
class IntrusiveList {
 public:
  [[nodiscard]] bool empty() const noexcept { return newest_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] T* newest() const noexcept { return newest_; }
  [[nodiscard]] T* oldest() const noexcept { return oldest_; }
  [[nodiscard]] static T* older(const T* element) noexcept { return (element->*links).older; }
  [[nodiscard]] static T* newer(const T* element) noexcept { return (element->*links).newer; }

  void push(T* element) noexcept {
    // They may be part of a union.
    std::construct_at(&(element->*links), ListLinks<T>{.older = newest_, .newer = nullptr});
    (newest_ == nullptr ? oldest_ : (newest_->*links).newer) = element;
    newest_ = element;
    ++size_;
  }

  void remove(T* element) noexcept {
    const ListLinks<T> place = element->*links;
    (place.older == nullptr ? oldest_ : (place.older->*links).newer) = place.newer;
    (place.newer == nullptr ? newest_ : (place.newer->*links).older) = place.older;
    --size_;
  }

 private:
  T* newest_ = nullptr;
  T* oldest_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace cistern
