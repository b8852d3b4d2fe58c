// The functions of `cistern/c/torch.h`: one `TorchMemory` for the process.
#include "cistern/c/torch.h"

#include <cstdlib>
#include <exception>
#include <string_view>

#include "c/torch_memory.hpp"
#include "cistern/core/report.hpp"

namespace cistern {
namespace {

/// Never closed: tensors are freed after the destructors of static objects have run.
TorchMemory& torch_memory() {
  static TorchMemory* const memory = [] {
    auto* const made = new TorchMemory;
    std::atexit([] { torch_memory().finish_recordings(); });
    return made;
  }();
  return *memory;
}

}  // namespace
}  // namespace cistern

// The only names that the library shows.
#pragma GCC visibility push(default)

void* cistern_torch_malloc(size_t bytes, int device, CUstream_st* stream) {
  return cistern::torch_memory().allocate(bytes, device, stream);
}

void* cistern_torch_try_malloc(size_t bytes, int device, CUstream_st* stream) {
  try {
    return cistern::torch_memory().allocate(bytes, device, stream);
  } catch (const std::exception& error) {
    constexpr std::string_view prefix = "cistern: ";  // which a report has anyway
    const std::string_view what = error.what();
    cistern::report("%s", error.what() + (what.starts_with(prefix) ? prefix.size() : 0));
    return nullptr;
  }
}

void cistern_torch_free(void* memory, size_t /*bytes*/, int device, CUstream_st* stream) {
  cistern::torch_memory().free(memory, device, stream);
}

void cistern_torch_record_stream(void* memory, CUstream_st* stream) {
  cistern::torch_memory().also_used_on(memory, stream);
}

void cistern_torch_retire_stream(int device, CUstream_st* stream) {
  cistern::torch_memory().retire(device, stream);
}

void cistern_torch_empty_cache() {
  cistern::torch_memory().trim();
}

void cistern_torch_peaks(int device, size_t* live, size_t* reserved) {
  const cistern::Stats stats = cistern::torch_memory().stats(device);
  if (live != nullptr) *live = stats.live_requested.peak;
  if (reserved != nullptr) *reserved = stats.reserved.peak;
}

#pragma GCC visibility pop
