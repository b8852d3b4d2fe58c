// Two kernels for a real GPU, which the driver compiles when they are loaded: one writes a number
// to every word of a block, the other counts the words that hold another. With the calls of the
// driver that a program uses and the library does not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dlfcn.h>

#include "cistern/core/block.hpp"
#include "device/cuda_abi.hpp"

namespace cistern::testing {

inline constexpr const char* cuda_kernels_text = R"(
.version 7.0
.target sm_52
.address_size 64

.visible .entry write_words(.param .u64 memory, .param .u32 count, .param .u32 value)
{
  .reg .pred %p<2>;
  .reg .b32 %r<9>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [memory];
  ld.param.u32 %r1, [count];
  ld.param.u32 %r2, [value];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  mov.u32 %r7, %nctaid.x;
  mul.lo.s32 %r8, %r7, %r4;
write_next:
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra write_done;
  mul.wide.u32 %rd3, %r6, 4;
  add.s64 %rd4, %rd2, %rd3;
  st.global.u32 [%rd4], %r2;
  add.s32 %r6, %r6, %r8;
  bra write_next;
write_done:
  ret;
}

.visible .entry count_others(.param .u64 memory, .param .u32 count, .param .u32 value,
                             .param .u64 others)
{
  .reg .pred %p<3>;
  .reg .b32 %r<11>;
  .reg .b64 %rd<7>;
  ld.param.u64 %rd1, [memory];
  ld.param.u32 %r1, [count];
  ld.param.u32 %r2, [value];
  ld.param.u64 %rd5, [others];
  cvta.to.global.u64 %rd2, %rd1;
  cvta.to.global.u64 %rd6, %rd5;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  mov.u32 %r7, %nctaid.x;
  mul.lo.s32 %r8, %r7, %r4;
count_next:
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra count_done;
  mul.wide.u32 %rd3, %r6, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.u32 %r9, [%rd4];
  setp.eq.u32 %p2, %r9, %r2;
  @%p2 bra count_right;
  atom.global.add.u32 %r10, [%rd6], 1;
count_right:
  add.s32 %r6, %r6, %r8;
  bra count_next;
count_done:
  ret;
}
)";

/// Loaded into the context that is current, and never unloaded.
class CudaKernels {
 public:
  CudaKernels() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    const auto find = [&](auto& entry, const char* name) {
      entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(dlsym(library, name));
      return entry != nullptr;
    };
    Load load = nullptr;
    FindKernel find_kernel = nullptr;
    if (library == nullptr || !find(load, "cuModuleLoadData") ||
        !find(find_kernel, "cuModuleGetFunction") || !find(launch_, "cuLaunchKernel"))
      return;
    void* loaded = nullptr;
    result_ = load(&loaded, cuda_kernels_text);
    if (result_ == CudaResult::success) result_ = find_kernel(&write_, loaded, "write_words");
    if (result_ == CudaResult::success) result_ = find_kernel(&count_, loaded, "count_others");
  }

  /// What became of loading them.
  [[nodiscard]] CudaResult result() const { return result_; }

  CudaResult write(const Block& block, std::uint32_t value, CUstream_st* stream) const {
    Arguments arguments{block, value};
    std::array<void*, 3> places{&arguments.memory, &arguments.count, &arguments.value};
    return run(write_, places.data(), stream);
  }

  /// Adds to the number at `others`.
  CudaResult count_others(const Block& block, std::uint32_t value, const Block& others,
                          CUstream_st* stream) const {
    Arguments arguments{block, value};
    void* counter = others.memory;
    std::array<void*, 4> places{&arguments.memory, &arguments.count, &arguments.value, &counter};
    return run(count_, places.data(), stream);
  }

 private:
  using Load = CudaResult (*)(void** module, const void* text);
  using FindKernel = CudaResult (*)(void** kernel, void* module, const char* name);
  using Launch = CudaResult (*)(void* kernel, unsigned blocks_x, unsigned blocks_y,
                                unsigned blocks_z, unsigned threads_x, unsigned threads_y,
                                unsigned threads_z, unsigned shared_bytes, CUstream_st* stream,
                                void** arguments, void** extra);

  struct Arguments {
    Arguments(const Block& block, std::uint32_t written)
        : memory(block.memory),
          count(static_cast<std::uint32_t>(block.requested / sizeof written)),
          value(written) {}
    void* memory;
    std::uint32_t count;
    std::uint32_t value;
  };

  CudaResult run(void* kernel, void** arguments, CUstream_st* stream) const {
    return launch_(kernel, 32, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr);
  }

  CudaResult result_ = CudaResult::not_found;
  Launch launch_ = nullptr;
  void* write_ = nullptr;
  void* count_ = nullptr;
};

}  // namespace cistern::testing
