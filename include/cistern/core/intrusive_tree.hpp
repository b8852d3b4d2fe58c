// An ordered set through members of its elements: nothing is allocated to put an element in. It is
// a treap (R. Seidel, C. Aragon: Randomized Search Trees, 1996) whose priorities are hashes of the
// elements' addresses, so that inserting, erasing and searching are O(log n) expected, and O(1) in
// the sets of one or two elements that a well-spread index is made of.
#pragma once

#include <cstdint>

namespace cistern {

/// An element's place in one tree.
template <class T>
struct TreeLinks {
  T* left = nullptr;
  T* right = nullptr;
};

/// `Order::before(a, b)` is a strict order in which no two elements of a tree are equal. Where
/// there is an `Order::update(element)`, it is called whenever what is below an element has
/// changed, so that elements can summarise their subtrees. Not thread-safe.
template <class T, TreeLinks<T> T::*links, class Order>
class IntrusiveTree {
 public:
  [[nodiscard]] bool empty() const noexcept { return root_ == nullptr; }
  [[nodiscard]] T* root() const noexcept { return root_; }
  [[nodiscard]] static T* left(const T* element) noexcept { return (element->*links).left; }
  [[nodiscard]] static T* right(const T* element) noexcept { return (element->*links).right; }

  void insert(T* element) noexcept {
    if (root_ == nullptr) [[likely]] {
      element->*links = {};
      update(element);
      root_ = element;
    } else {
      root_ = inserted(root_, element);
    }
  }

  void erase(T* element) noexcept {
    if (root_ == element) [[likely]] {
      root_ = joined(left(element), right(element));
    } else {
      root_ = erased(root_, element);
    }
  }

  /// The first element of which `reached(element)` is true, or null. Of the elements in order, it
  /// is false for the first ones and true for the rest.
  template <class Reached>
  [[nodiscard]] T* first_reached(Reached&& reached) const noexcept {
    T* found = nullptr;
    for (T* at = root_; at != nullptr;) {
      if (reached(*at)) {
        found = at;
        at = left(at);
      } else {
        at = right(at);
      }
    }
    return found;
  }

  [[nodiscard]] T* first() const noexcept {
    return first_reached([](const T&) { return true; });
  }

  /// Calls `visit(element)` in order.
  template <class Visit>
  void each(Visit&& visit) const {
    each_below(root_, visit);
  }

 private:
  static std::uint64_t priority(const T* element) noexcept {
    constexpr std::uint64_t odd = 0x9e3779b97f4a7c15U;
    const std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(element) * odd;
    return (mixed ^ mixed >> 32U) * odd;  // one product of evenly spaced addresses is not random
  }

  static void update(T* element) noexcept {
    if constexpr (requires { Order::update(*element); }) Order::update(*element);
  }

  static T* inserted(T* top, T* element) noexcept {
    if (top == nullptr || priority(element) > priority(top)) {
      split(top, *element, (element->*links).left, (element->*links).right);
      update(element);
      return element;
    }
    TreeLinks<T>& below = top->*links;
    if (Order::before(*element, *top)) {
      below.left = inserted(below.left, element);
    } else {
      below.right = inserted(below.right, element);
    }
    update(top);
    return top;
  }

  static T* erased(T* top, T* element) noexcept {
    TreeLinks<T>& below = top->*links;
    if (top == element) return joined(below.left, below.right);
    if (Order::before(*element, *top)) {
      below.left = erased(below.left, element);
    } else {
      below.right = erased(below.right, element);
    }
    update(top);
    return top;
  }

  /// What of `top` comes before `place`, and the rest.
  static void split(T* top, const T& place, T*& before, T*& after) noexcept {
    if (top == nullptr) {
      before = after = nullptr;
      return;
    }
    TreeLinks<T>& below = top->*links;
    T* nearer = nullptr;
    if (Order::before(*top, place)) {
      split(below.right, place, nearer, after);
      below.right = nearer;
      before = top;
    } else {
      split(below.left, place, before, nearer);
      below.left = nearer;
      after = top;
    }
    update(top);
  }

  /// All of `before` comes before all of `after`.
  static T* joined(T* before, T* after) noexcept {
    if (before == nullptr) return after;
    if (after == nullptr) return before;
    if (priority(before) > priority(after)) {
      (before->*links).right = joined((before->*links).right, after);
      update(before);
      return before;
    }
    (after->*links).left = joined(before, (after->*links).left);
    update(after);
    return after;
  }

  template <class Visit>
  static void each_below(T* top, Visit& visit) {
    if (top == nullptr) return;
    T* const right_side = right(top);  // `visit` may reuse the element
    each_below(left(top), visit);
    visit(*top);
    each_below(right_side, visit);
  }

  T* root_ = nullptr;
};

}  // namespace cistern
