// Makes the program's own heap fail on demand: what a pool does when the host has no memory for its
// records.
#pragma once

#include <cstddef>

namespace cistern::testing {

/// While it lives, the n-th use of operator new on this thread (from 1) and all after it fail.
class FailingNew {
 public:
  explicit FailingNew(int n);
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;
  FailingNew(FailingNew&&) = delete;
  FailingNew& operator=(FailingNew&&) = delete;
  ~FailingNew();

  /// True once a use has failed.
  [[nodiscard]] static bool has_failed();
};

/// While it lives, none fails on this thread: of a double that stands in for what has a heap of its
/// own.
class SparedNew {
 public:
  SparedNew();
  SparedNew(const SparedNew&) = delete;
  SparedNew& operator=(const SparedNew&) = delete;
  SparedNew(SparedNew&&) = delete;
  SparedNew& operator=(SparedNew&&) = delete;
  ~SparedNew();

 private:
  int uses_left_;
};

/// How many blocks of the heap this thread has taken with operator new, less those it gave back.
[[nodiscard]] std::ptrdiff_t heap_blocks();

}  // namespace cistern::testing
