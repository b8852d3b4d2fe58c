#include "c/torch_memory.hpp"

#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/shortage.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/pool/owned_pool.hpp"
#include "device/cuda_streams.hpp"
#include "stack/default_stack.hpp"
#include "stack/on_gpu.hpp"

namespace cistern {
namespace {

/// What a stack stands on; null for what it does not.
struct Ends {
  CudaDevice* cuda = nullptr;
  const Device* other = nullptr;
};

/// Throws std::invalid_argument where PyTorch cannot use the stack on this GPU, std::runtime_error
/// where a part of it could not be set up.
void find_ends(Resource& stage, int gpu, Ends& ends) {
  if (std::string_view(stage.device().limits().kind) == "deferred") {  // and should be made by now
    throw std::runtime_error(
        "cistern: a deferred stack could not be set up, as was reported on standard error");
  }
  if (dynamic_cast<const OwnedPool*>(&stage) != nullptr) {
    throw std::invalid_argument(
        "cistern: 'arena' and 'planned' are of one thread, and PyTorch's backward pass runs on "
        "another; 'cache', 'coalesce' and 'virtual' are of any");
  }
  if (auto* const cuda = dynamic_cast<CudaDevice*>(&stage)) {
    if (cuda->ordinal() != gpu) {
      const std::string named = std::to_string(cuda->ordinal());
      throw std::invalid_argument("cistern: PyTorch asks for memory of GPU " + std::to_string(gpu) +
                                  ", and the stack names GPU " + named +
                                  "; without device=" + named + " each GPU has a stack of its own");
    }
    if (ends.cuda == nullptr) ends.cuda = cuda;  // the others share its streams
  } else if (const auto* const device = dynamic_cast<const Device*>(&stage)) {
    if (!device->limits().host_addressable) {
      throw std::invalid_argument(std::string("cistern: no GPU of PyTorch's can use memory of ") +
                                  device->limits().kind);
    }
    ends.other = device;
  }
  stage.each_upstream([&](Resource& upstream) { find_ends(upstream, gpu, ends); });
}

/// Says it in the words by which programs of PyTorch tell that there is no memory left.
class OutOfCudaMemory final : public OutOfMemory {
 public:
  explicit OutOfCudaMemory(const OutOfMemory& from) noexcept : OutOfMemory(from) {
    std::snprintf(line_.data(), line_.size(), "CUDA out of memory. %s", from.what());
  }
  [[nodiscard]] const char* what() const noexcept override { return line_.data(); }

 private:
  std::array<char, 256> line_{};
};

}  // namespace

TorchMemory::~TorchMemory() {
  for (const auto& gpu : open_)
    gpu->blocks.drain(
        [&](const AddressMap::Entry& entry) { gpu->stack->deallocate(entry.block, entry.stream); });
}

void* TorchMemory::allocate(std::size_t bytes, int gpu, CUstream_st* stream) {
  if (bytes == 0) return nullptr;
  OneGpu& of = find_or_open(gpu);
  const Request request{.bytes = bytes, .stream = of.stream(stream)};
  if (of.device != nullptr && of.device->is_captured(request.stream)) {
    throw std::runtime_error(
        "cistern: no memory is given out in a capture (torch.cuda.graph): PyTorch does not say to "
        "a pluggable allocator what a graph still uses");
  }
  const Block block = of.allocate(request);
  if (!of.blocks.insert(block, request.stream)) {
    of.stack->deallocate(block, request.stream);
    throw std::bad_alloc();
  }
  return block.memory;
}

void TorchMemory::free(void* memory, int gpu, CUstream_st* stream) noexcept {
  if (memory == nullptr) return;
  OneGpu* const of = find(gpu);
  const auto entry = of != nullptr ? of->blocks.take(memory) : std::nullopt;
  if (!entry) {
    report("refused to free %p on GPU %d: freed before, or not allocated there", memory, gpu);
    return;
  }
  Stream last = entry->stream;
  // PyTorch frees on the stream of the request: the driver need not be asked which that is.
  const bool is_same = stream == last.handle && !CudaStreams::is_per_thread(stream);
  if (of->device != nullptr && !is_same) {
    const Stream freed_on = of->stream_or_default(stream);
    last = join(of->device->stream_order(), freed_on, last).value_or(freed_on);
  }
  of->stack->deallocate(entry->block, last);
}

// PyTorch asks this of any tensor, also of one that holds another library's memory.
void TorchMemory::also_used_on(void* memory, CUstream_st* stream) noexcept {
  for (const auto& gpu : gpus_) {
    const OneGpu* const of = gpu.load(std::memory_order_acquire);
    const auto entry = of != nullptr ? of->blocks.find(memory) : std::nullopt;
    if (!entry) continue;
    const Expected<void> noted =
        of->stack->also_used_on(entry->block, of->stream_or_default(stream));
    if (!noted) report("cannot record a stream: %s", describe(noted.error()).c_str());
    return;
  }
}

void TorchMemory::retire(int gpu, CUstream_st* stream) noexcept {
  const OneGpu* const of = find(gpu);
  if (of != nullptr && of->device != nullptr)
    of->device->stream_order()->retire(of->stream_or_default(stream));
}

void TorchMemory::trim() noexcept {
  for (const auto& gpu : gpus_) {
    if (OneGpu* const of = gpu.load(std::memory_order_acquire)) of->stack->trim();
  }
}

Stats TorchMemory::stats(int gpu) const noexcept {
  const OneGpu* const of = find(gpu);
  return of != nullptr ? of->stack->stats() : Stats{};
}

void TorchMemory::finish_recordings() {
  for (const auto& gpu : gpus_) {
    if (OneGpu* const of = gpu.load(std::memory_order_acquire))
      language::finish_recordings(*of->stack);
  }
}

Block TorchMemory::OneGpu::allocate(const Request& request) const try {
  return stack->allocate(request);
} catch (const OutOfMemory& error) {
  const Error& why = error.error();
  if (why.is_exhaustion() || why.code == Errc::too_large) throw OutOfCudaMemory(error);
  throw;
}

Stream TorchMemory::OneGpu::stream(CUstream_st* handle) const {
  return device != nullptr ? device->stream(handle) : Stream{};
}

/// A stream of another context is not waited for. The one that the memory was requested for always
/// is.
Stream TorchMemory::OneGpu::stream_or_default(CUstream_st* handle) const noexcept {
  try {
    return stream(handle);
  } catch (const std::exception& error) {
    report("the default stream is taken instead: %s", error.what());
    return {};
  }
}

TorchMemory::OneGpu* TorchMemory::find(int gpu) const noexcept {
  if (gpu < 0 || gpu >= most_gpus) return nullptr;
  return gpus_[static_cast<std::size_t>(gpu)].load(std::memory_order_acquire);
}

TorchMemory::OneGpu& TorchMemory::find_or_open(int gpu) {
  if (OneGpu* const known = find(gpu)) return *known;
  if (gpu < 0 || gpu >= most_gpus) {
    throw std::invalid_argument("cistern: there is no GPU " + std::to_string(gpu) +
                                ", their numbers are at most " + std::to_string(most_gpus - 1));
  }
  const std::lock_guard lock(mutex_);
  if (OneGpu* const known = find(gpu)) return *known;
  open_.push_back(open_for(gpu));
  gpus_[static_cast<std::size_t>(gpu)].store(open_.back().get(), std::memory_order_release);
  return *open_.back();
}

std::unique_ptr<TorchMemory::OneGpu> TorchMemory::open_for(int gpu) {
  const std::string text = language::text_of_environment(default_stack);
  auto stack_text = language::on_gpu(text, static_cast<unsigned>(gpu));
  if (!stack_text) throw language::in_environment(text, stack_text.error());
  auto opened = std::make_unique<OneGpu>();
  opened->stack = open(*stack_text);
  if (!opened->stack->device().limits().memory_is_address) {
    throw std::invalid_argument(
        "cistern: the memory of a stack for PyTorch is addresses, not objects of " +
        opened->stack->device().limits().name);
  }
  Ends ends;
  find_ends(*opened->stack, gpu, ends);
  opened->device = ends.cuda;
  if (ends.other != nullptr) {
    report(
        "PyTorch is given memory of '%s', which a kernel can use only where the GPU reads all of "
        "the host's",
        ends.other->limits().kind);
  }
  return opened;
}

}  // namespace cistern
