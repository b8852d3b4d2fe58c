#include "support/failing_new.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

thread_local int uses_left = -1;  // negative: never fails
thread_local bool has_failed_once = false;
thread_local std::ptrdiff_t blocks_taken = 0;

void* take_memory(std::size_t bytes, std::size_t alignment) noexcept {
  if (uses_left == 0) {
    has_failed_once = true;
    return nullptr;
  }
  if (uses_left > 0) --uses_left;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory != nullptr) ++blocks_taken;
  return memory;
}

void give_back(void* memory) noexcept {
  if (memory != nullptr) --blocks_taken;
  std::free(memory);
}

void* take_memory_or_throw(std::size_t bytes, std::size_t alignment) {
  void* memory = take_memory(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

constexpr std::size_t usual = alignof(std::max_align_t);

}  // namespace

namespace cistern::testing {

FailingNew::FailingNew(int n) {
  uses_left = n - 1;
  has_failed_once = false;
}
FailingNew::~FailingNew() {
  uses_left = -1;
}
bool FailingNew::has_failed() {
  return has_failed_once;
}

SparedNew::SparedNew() : uses_left_(uses_left) {
  uses_left = -1;
}
SparedNew::~SparedNew() {
  uses_left = uses_left_;
}

std::ptrdiff_t heap_blocks() {
  return blocks_taken;
}

}  // namespace cistern::testing

// The replaceable functions of the standard, all of those that the programs under test use.
void* operator new(std::size_t bytes) {
  return take_memory_or_throw(bytes, usual);
}
void* operator new[](std::size_t bytes) {
  return take_memory_or_throw(bytes, usual);
}
void* operator new(std::size_t bytes, std::align_val_t a) {
  return take_memory_or_throw(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a) {
  return take_memory_or_throw(bytes, static_cast<std::size_t>(a));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return take_memory(bytes, usual);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return take_memory(bytes, usual);
}
void* operator new(std::size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take_memory(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take_memory(bytes, static_cast<std::size_t>(a));
}
void operator delete(void* memory) noexcept {
  give_back(memory);
}
void operator delete[](void* memory) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  give_back(memory);
}
