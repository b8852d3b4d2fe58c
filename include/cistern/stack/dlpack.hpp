// Tensors at the edge: a buffer handed to another library with its shape and element type, and one
// of theirs taken over, without a copy, by the structure that NumPy, PyTorch, JAX and others agree
// on (DLPack). Optional and apart: who includes this needs dlpack/dlpack.h (Debian's libdlpack-dev,
// version 0.6 or later), the library does not.
//
// DLPack asks for data that is aligned to 256 bytes, and its consumers hardly do: ask for it in the
// request where one does. Not thread-safe, but a tensor may be deleted on any thread.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dlpack/dlpack.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/device.hpp"
#include "cistern/device/cuda.hpp"

namespace cistern {

/// What lies in a buffer.
struct DlpackTensor {
  std::span<const std::int64_t> shape;      // none for a single element
  std::span<const std::int64_t> strides{};  // in elements, may be negative; none: row by row
  DLDataType dtype{.code = kDLFloat, .bits = 32, .lanes = 1};
  std::size_t byte_offset = 0;  // of the element whose indices are all 0
  int device_id = 0;  // which one, where there are several of the kind; CUDA's know theirs
};

namespace dlpack {

[[noreturn]] inline void refuse(const char* why) {
  throw std::invalid_argument(std::string("dlpack: ") + why);
}

/// Bytes of one element.
inline std::int64_t item_bytes(const DLDataType& dtype) {
  if (dtype.bits == 0 || dtype.lanes == 0) refuse("an element has bits and lanes");
  return (std::int64_t{dtype.bits} * dtype.lanes + 7) / 8;
}

inline std::int64_t product(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) refuse("the size of the tensor overflows");
  return result;
}
inline std::int64_t sum(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) refuse("the size of the tensor overflows");
  return result;
}

/// The product of all dimensions.
inline std::int64_t elements(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) refuse("a dimension is not negative");
    if (size == 0) count = 0;
  }
  for (const std::int64_t size : shape)
    count = product(count, size);
  return count;
}

/// Those of a tensor that lies row by row.
inline std::vector<std::int64_t> row_major(std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  if (elements(shape) == 0) return strides;  // of which any are right
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step = product(step, shape[i]);
  }
  return strides;
}

/// Where the elements lie relative to the one whose indices are all 0, in elements: from `first` to
/// before `end`.
struct Extent {
  std::int64_t first = 0;
  std::int64_t end = 0;
};
inline Extent extent(std::span<const std::int64_t> shape, std::span<const std::int64_t> strides) {
  if (elements(shape) == 0) return {};
  Extent extent{.first = 0, .end = 1};
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::int64_t reach = product(shape[i] - 1, strides[i]);
    std::int64_t& side = reach < 0 ? extent.first : extent.end;
    side = sum(side, reach);
  }
  return extent;
}

/// What one number of an element is aligned to, as a compiler would.
inline std::size_t alignment(const DLDataType& dtype) noexcept {
  const std::size_t parts = dtype.code == kDLComplex ? 2 : 1;
  const std::size_t bytes = dtype.bits / 8U / parts;
  return bytes != 0 && (bytes & (bytes - 1)) == 0 ? bytes : 1;
}

inline DLDeviceType device_type(const DeviceLimits& limits) {
  struct Kind {
    std::string_view name;
    DLDeviceType type;
  };
  static constexpr Kind kinds[] = {// NOLINT(modernize-avoid-c-arrays)
                                   {.name = "host", .type = kDLCPU},
                                   {.name = "pmr", .type = kDLCPU},
                                   {.name = "cuda", .type = kDLCUDA},
                                   {.name = "opencl", .type = kDLOpenCL}};
  for (const Kind& kind : kinds) {
    if (kind.name != limits.kind) continue;
    // DLPack's memory of OpenCL is an object. What the CPU can address is a tensor of its own.
    if (kind.type != kDLOpenCL || !limits.memory_is_address) return kind.type;
    if (limits.host_addressable) return kDLCPU;
  }
  refuse("the device is of no kind that DLPack knows");
}

/// As a tensor names it. Memory of CUDA's knows its GPU, and DLPack which kind of it there is.
inline DLDevice device_of(const Device& device, int device_id) {
  const auto* const cuda = dynamic_cast<const CudaDevice*>(&device);
  if (cuda == nullptr) return {.device_type = device_type(device.limits()), .device_id = device_id};
  const CudaDevice::Memory memory = cuda->memory();
  return {.device_type = memory == CudaDevice::Memory::managed  ? kDLCUDAManaged
                         : memory == CudaDevice::Memory::pinned ? kDLCUDAHost
                                                                : kDLCUDA,
          .device_id = cuda->ordinal()};
}

/// What a tensor that was handed out keeps until it is deleted.
struct Exported {
  DLManagedTensor managed{};
  Buffer buffer;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

}  // namespace dlpack

/// Hands a buffer over as a tensor: whoever calls its `deleter` frees it, on any thread, also after
/// the stack was closed. The tensor's strides are always written out. Throws std::invalid_argument,
/// with the buffer as it was, where the elements do not all lie within the bytes that were
/// requested, are not aligned, or where DLPack has no word for the device; std::bad_alloc.
[[nodiscard]] inline DLManagedTensor* to_dlpack(Buffer&& buffer, const DlpackTensor& tensor) {
  if (buffer.resource() == nullptr) dlpack::refuse("the buffer is no device's");
  if (tensor.shape.size() > INT_MAX) dlpack::refuse("there are too many dimensions");
  if (!tensor.strides.empty() && tensor.strides.size() != tensor.shape.size())
    dlpack::refuse("there is a stride for each dimension, or there are none");
  const Device& of = buffer.resource()->device();
  const DeviceLimits& limits = of.limits();
  const DLDevice device = dlpack::device_of(of, tensor.device_id);

  const bool is_empty = dlpack::elements(tensor.shape) == 0;
  auto exported = std::make_unique<dlpack::Exported>();
  exported->shape.assign(tensor.shape.begin(), tensor.shape.end());
  exported->strides = tensor.strides.empty()
                          ? dlpack::row_major(tensor.shape)
                          : std::vector(tensor.strides.begin(), tensor.strides.end());

  const std::int64_t item = dlpack::item_bytes(tensor.dtype);
  const dlpack::Extent extent = dlpack::extent(exported->shape, exported->strides);
  if (tensor.byte_offset > buffer.bytes()) dlpack::refuse("the tensor begins within the buffer");
  const auto before = static_cast<std::int64_t>(tensor.byte_offset);
  const auto behind = static_cast<std::int64_t>(buffer.bytes() - tensor.byte_offset);
  if (dlpack::product(extent.first, item) < -before || dlpack::product(extent.end, item) > behind)
    dlpack::refuse("the tensor lies within the buffer");
  Block first = buffer.block();
  first.offset += tensor.byte_offset;
  if (!is_empty && !is_aligned(first, dlpack::alignment(tensor.dtype), limits))
    dlpack::refuse("the elements are aligned");

  DLManagedTensor& managed = exported->managed;
  managed.dl_tensor = {.data = first.memory,
                       .device = device,
                       .ndim = static_cast<int>(exported->shape.size()),
                       .dtype = tensor.dtype,
                       .shape = exported->shape.data(),
                       .strides = exported->strides.data(),
                       .byte_offset = first.offset};
  managed.manager_ctx = exported.get();
  managed.deleter = [](DLManagedTensor* self) {
    delete static_cast<dlpack::Exported*>(self->manager_ctx);
  };
  exported->buffer = std::move(buffer);
  return &exported.release()->managed;
}

/// Another library's tensor: its memory is used where it lies, and its deleter is called in the
/// end. Move-only.
class ImportedTensor {
 public:
  ImportedTensor() noexcept = default;

  /// Nothing as long as there is no tensor.
  [[nodiscard]] bool empty() const noexcept { return managed_ == nullptr; }

  /// The address of the element whose indices are all 0, where the device's memory has addresses;
  /// else, as for OpenCL, the object in which it lies `byte_offset` behind the start.
  [[nodiscard]] void* data() const noexcept {
    if (tensor().device.device_type == kDLOpenCL || tensor().data == nullptr) return tensor().data;
    return static_cast<std::byte*>(tensor().data) + tensor().byte_offset;
  }
  [[nodiscard]] std::uint64_t byte_offset() const noexcept { return tensor().byte_offset; }
  /// Of all elements together.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::span<const std::int64_t> shape() const noexcept {
    return {tensor().shape, dimensions()};
  }
  /// In elements, also where the other library leaves them out.
  [[nodiscard]] std::span<const std::int64_t> strides() const noexcept { return strides_; }
  [[nodiscard]] DLDataType dtype() const noexcept { return tensor().dtype; }
  [[nodiscard]] DLDevice device() const noexcept { return tensor().device; }
  /// True if the elements lie row by row without gaps: `bytes` bytes from `data` on.
  [[nodiscard]] bool is_compact() const noexcept { return is_compact_; }

  /// Calls the deleter now. Empty afterwards.
  void reset() noexcept { managed_.reset(); }

 private:
  friend ImportedTensor from_dlpack(DLManagedTensor* managed);

  struct Delete {
    void operator()(DLManagedTensor* managed) const noexcept {
      if (managed->deleter != nullptr) managed->deleter(managed);
    }
  };

  [[nodiscard]] const DLTensor& tensor() const noexcept { return managed_->dl_tensor; }
  [[nodiscard]] std::size_t dimensions() const noexcept {
    return static_cast<std::size_t>(tensor().ndim);
  }

  std::unique_ptr<DLManagedTensor, Delete> managed_;
  std::vector<std::int64_t> strides_;
  std::size_t bytes_ = 0;
  bool is_compact_ = false;
};

/// Takes a tensor over. Throws std::invalid_argument, with the tensor still the caller's, where it
/// is null or makes no sense: a negative dimension, an element without bits, a size that overflows,
/// elements without memory; std::bad_alloc.
[[nodiscard]] inline ImportedTensor from_dlpack(DLManagedTensor* managed) {
  if (managed == nullptr) dlpack::refuse("there is no tensor");
  const DLTensor& tensor = managed->dl_tensor;
  if (tensor.ndim < 0 || (tensor.ndim > 0 && tensor.shape == nullptr))
    dlpack::refuse("a tensor has a shape");
  const std::span<const std::int64_t> shape(tensor.shape, static_cast<std::size_t>(tensor.ndim));
  const std::int64_t bytes =
      dlpack::product(dlpack::elements(shape), dlpack::item_bytes(tensor.dtype));
  if (bytes > 0 && tensor.data == nullptr) dlpack::refuse("the elements have memory");

  ImportedTensor imported;
  const std::vector<std::int64_t> compact = dlpack::row_major(shape);
  imported.strides_ = tensor.strides == nullptr
                          ? compact
                          : std::vector(tensor.strides, tensor.strides + tensor.ndim);
  static_cast<void>(dlpack::extent(shape, imported.strides_));
  imported.is_compact_ = true;
  for (std::size_t i = 0; bytes > 0 && i < shape.size(); ++i) {
    if (shape[i] > 1 && imported.strides_[i] != compact[i]) imported.is_compact_ = false;
  }
  imported.bytes_ = static_cast<std::size_t>(bytes);
  imported.managed_.reset(managed);
  return imported;
}

}  // namespace cistern
