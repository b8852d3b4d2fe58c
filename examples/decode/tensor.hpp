// The one owner of memory in this program: rows and columns of numbers over a cistern::Buffer.
// Weights, activations, scratch and token ids are all of it, so that every byte the model computes
// with comes from a cistern resource. What it holds is not initialised: memory is handed out as it
// was left. Movable, not copyable; not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cistern/core/buffer.hpp"

namespace decode {

using Token = std::uint32_t;

template <class T>
class Matrix {
 public:
  Matrix() = default;

  /// Throws cistern::OutOfMemory.
  Matrix(cistern::Resource& memory, std::size_t rows, std::size_t columns)
      : buffer_(memory, rows * columns * sizeof(T)), rows_(rows), columns_(columns) {}

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t columns() const noexcept { return columns_; }
  [[nodiscard]] std::size_t size() const noexcept { return rows_ * columns_; }

  // Where the memory is the host's.

  [[nodiscard]] std::span<T> values() noexcept { return buffer_.as<T>(); }
  [[nodiscard]] std::span<const T> values() const noexcept { return buffer_.as<T>(); }

  /// Of a matrix that is filled through a reference that cannot resize it.
  [[nodiscard]] std::span<T> host() const noexcept { return buffer_.template as<T>(); }
  [[nodiscard]] const cistern::Block& block() const noexcept { return buffer_.block(); }

  [[nodiscard]] std::span<T> row(std::size_t index) noexcept {
    return values().subspan(index * columns_, columns_);
  }
  [[nodiscard]] std::span<const T> row(std::size_t index) const noexcept {
    return values().subspan(index * columns_, columns_);
  }

 private:
  cistern::Buffer buffer_;
  std::size_t rows_ = 0;
  std::size_t columns_ = 0;
};

using Tensor = Matrix<float>;
using Tokens = Matrix<Token>;

}  // namespace decode
