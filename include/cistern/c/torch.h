/* cistern as the memory of PyTorch: what libcistern_torch.so exports for
 * torch.cuda.memory.CUDAPluggableAllocator, which calls it for every tensor. README.md shows how.
 *
 * Each GPU has a stack of its own, opened at the first request for it and never closed. Its text is
 * that of the environment variable CISTERN_STACK then, or "retry > coalesce > cuda": in it, every
 * `cuda` that names no device stands on the GPU that is asked for. One that names another GPU is an
 * error, and so are `arena` and `planned`, which are of one thread. Memory of another device is
 * handed out after a line on standard error: most GPUs cannot use it.
 *
 * A pointer stands for its block, so each call pays for a look-up of the address as well. The
 * functions are thread-safe. Where one fails it throws a C++ exception, which PyTorch expects and
 * makes a RuntimeError with the same words.
 *
 * PyTorch does not say to such an allocator what a captured graph (torch.cuda.graph) still uses:
 * memory that was freed in a capture is handed out again, while the graph would write to it. */
#ifndef CISTERN_C_TORCH_H
#define CISTERN_C_TORCH_H

#include <stddef.h> /* NOLINT(modernize-deprecated-headers): C reads this */

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it; null is the default stream */

/** Memory for the work of `stream` on the GPU of that number, as the runtime counts; null for no
 * bytes. Throws OutOfMemory (a std::bad_alloc) and, where there is no stack for this GPU,
 * std::exception; the next call tries to open it again. */
void* cistern_torch_malloc(size_t bytes, int device, struct CUstream_st* stream);

/** Takes memory back in the order of `stream`, which need not be the one it was requested for.
 * Never throws: an address that is not live on this GPU is reported on standard error and left
 * alone. */
void cistern_torch_free(void* memory, size_t bytes, int device, struct CUstream_st* stream);

/** Says that memory is in use on one more stream: when it is freed, it is not reused before that
 * stream is done with what stands in it. For `set_record_stream_fn`, without which PyTorch's
 * Tensor.record_stream does nothing. Never throws. */
void cistern_torch_record_stream(void* memory, struct CUstream_st* stream);

/** Gives all idle memory of all GPUs back. For `set_reset_fn`, without which torch.cuda.empty_cache
 * does nothing. Never throws. */
void cistern_torch_empty_cache(void);

/** The most bytes that were requested at one time, and the most that were obtained from the GPU;
 * both 0 before the first request. Pointers may be null. Never throws. */
void cistern_torch_peaks(int device, size_t* live, size_t* reserved);

#ifdef __cplusplus
}
#endif

#endif
