/* cistern as the memory of PyTorch: what libcistern_torch.so exports for
 * torch.cuda.memory.CUDAPluggableAllocator, which calls it for every tensor. README.md shows how.
 * Who calls the functions by ctypes declares their arguments: it takes a number for an int.
 *
 * Each GPU has a stack of its own, opened at the first request for it and never closed. Its text is
 * that of the environment variable CISTERN_STACK then, or, where that is empty or not set,
 * "retry > coalesce > cuda": in it, every `cuda` that names no device stands on the GPU that is
 * asked for. One that names another GPU is an error, and so are `arena` and `planned`, which are of
 * one thread, and devices without memory of their own. Memory of the host is handed out after a
 * line on standard error: most GPUs cannot use it, and it is in the order of no stream, so that it
 * is another tensor's as soon as it is freed.
 *
 * A pointer stands for its block, so each call pays for a look-up of the address as well. The
 * functions are thread-safe. Where one fails it throws a C++ exception, which PyTorch expects and
 * makes a RuntimeError with the same words.
 *
 * Whoever takes memory waits for the streams that it was requested for, freed on or recorded for.
 * PyTorch's own streams are never destroyed; one of the program's is retired before.
 *
 * PyTorch does not say to such an allocator what a captured graph still uses, so that a request in
 * a capture (torch.cuda.graph) is refused. On GPUs that read each other's memory, the pages of
 * `virtual` and what `cuda(memory=async)` gives are seen by their own GPU alone: `cache` and
 * `coalesce` over `cuda` are not so. */
#ifndef CISTERN_C_TORCH_H
#define CISTERN_C_TORCH_H

#include <stddef.h> /* NOLINT(modernize-deprecated-headers): C reads this */

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it; null is the default stream */

/** For PyTorch alone, since it throws: memory for the work of `stream` on the GPU of that number,
 * as the runtime counts and the driver too; null for no bytes. Throws OutOfMemory (a
 * std::bad_alloc), whose words begin with "CUDA out of memory. " where that is why, and
 * std::exception in a capture and where there is no stack for this GPU; the next call tries to open
 * it again. */
void* cistern_torch_malloc(size_t bytes, int device, struct CUstream_st* stream);

/** The same, but where that throws, this says why on standard error and returns null. For
 * torch.cuda.MemPool, whose own allocator can then raise torch.OutOfMemoryError; inside
 * torch.cuda.use_mem_pool it may do so without giving back first what it keeps of this. */
void* cistern_torch_try_malloc(size_t bytes, int device, struct CUstream_st* stream);

/** Takes memory back in the order of `stream`, which need not be the one it was requested for; the
 * number of bytes is not looked at. Never throws: an address that is not live on this GPU is
 * reported on standard error and left alone, and a stream of another context is reported and taken
 * for the default one. A stream that was destroyed must not be named, here or below: the driver
 * cannot tell it from any other address. */
void cistern_torch_free(void* memory, size_t bytes, int device, struct CUstream_st* stream);

/** Says that memory is in use on one more stream of its GPU: when it is freed, the stream that
 * frees it is made to wait for what stands in that one. Without effect on memory that is not from
 * here. For `set_record_stream_fn`, without which PyTorch's Tensor.record_stream does nothing.
 * Never throws. */
void cistern_torch_record_stream(void* memory, struct CUstream_st* stream);

/** Waits for a stream of that GPU, which is not captured, and forgets it, so that it can be
 * destroyed. The default stream is only waited for. Never throws. */
void cistern_torch_retire_stream(int device, struct CUstream_st* stream);

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
