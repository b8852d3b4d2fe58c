// The arithmetic, one operator at a time and none in place, as array frameworks run it: each takes
// what it returns, and the scratch it needs, from a cistern resource. It is done where the memory
// is: by loops over the host's, by kernels over an OpenCL device's. Every element of a result is
// written before it is read, and sums are taken in an order that depends on shapes alone, so
// results are the same to the bit whatever the memory held and wherever it lies.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "tensor.hpp"

namespace decode {

using cistern::Resource;

/// The angles of some positions, one row each: half as many columns as a head is wide.
struct Rotation {
  Tensor cosines;
  Tensor sines;
};

/// Not thread-safe. Throws cistern::OutOfMemory, std::runtime_error where a device fails.
class Operators {
 public:
  /// `memory` is borrowed.
  explicit Operators(Resource& memory) noexcept : memory_(memory) {}
  Operators(const Operators&) = delete;
  Operators& operator=(const Operators&) = delete;
  Operators(Operators&&) = delete;
  Operators& operator=(Operators&&) = delete;
  virtual ~Operators() = default;

  /// Uninitialised.
  [[nodiscard]] Tensor tensor(std::size_t rows, std::size_t columns) const {
    return {memory_, rows, columns};
  }
  [[nodiscard]] Tokens tokens(std::size_t count) const { return {memory_, 1, count}; }

  // --- between here and the host ---

  virtual void upload(std::span<const float> from, const Tensor& to) = 0;
  virtual void upload(std::span<const Token> from, const Tokens& to) = 0;
  /// By row. Waits until all is computed.
  [[nodiscard]] virtual std::vector<float> download(const Tensor& from) = 0;
  [[nodiscard]] virtual Token download_first(const Tokens& from) = 0;

  // --- the operators ---

  /// The rows of `table` that the first `count` of `tokens` name.
  [[nodiscard]] virtual Tensor embed(const Tokens& tokens, std::size_t count,
                                     const Tensor& table) = 0;

  /// Each row of `x` times each row of `weight`. The result has a row for each of `x`, a column for
  /// each of `weight`.
  [[nodiscard]] virtual Tensor multiply(const Tensor& x, const Tensor& weight) = 0;

  /// Each row divided by its root mean square, times `gain`. https://arxiv.org/abs/1910.07467
  [[nodiscard]] virtual Tensor normalise(const Tensor& x, const Tensor& gain, double epsilon) = 0;

  /// The angles of `count` positions from `first` on. https://arxiv.org/abs/2104.09864
  [[nodiscard]] Rotation rotation(std::size_t first, std::size_t count, std::size_t head_width,
                                  double base);

  /// One head with each row turned by its position; the halves of a row are the coordinates.
  [[nodiscard]] virtual Tensor rotate(const Tensor& head, const Rotation& by) = 0;

  /// A copy of `count` columns from `first` on, of the first `rows` rows.
  [[nodiscard]] virtual Tensor columns(const Tensor& x, std::size_t rows, std::size_t first,
                                       std::size_t count) = 0;

  /// Writes `part` over the columns of `whole` from `first` on.
  virtual void paste(const Tensor& part, Tensor& whole, std::size_t first) = 0;

  /// Writes the first `count` rows of `from` over those of `to` from `first` on.
  virtual void copy_rows(const Tensor& from, std::size_t count, Tensor& to, std::size_t first) = 0;

  /// `x` with minus infinity where a row would look at a later position: beyond column `past` in
  /// row 0, and so on.
  [[nodiscard]] virtual Tensor mask_future(const Tensor& x, std::size_t past) = 0;

  [[nodiscard]] virtual Tensor scale(const Tensor& x, float by) = 0;

  /// The exponentials of each row divided by their sum.
  [[nodiscard]] virtual Tensor softmax(const Tensor& x) = 0;

  /// Each row of `weights` as weights of the rows of `values`: a plain matrix product.
  [[nodiscard]] virtual Tensor mix(const Tensor& weights, const Tensor& values) = 0;

  /// x * sigmoid(x)
  [[nodiscard]] virtual Tensor silu(const Tensor& x) = 0;

  [[nodiscard]] virtual Tensor product(const Tensor& a, const Tensor& b) = 0;
  [[nodiscard]] virtual Tensor sum(const Tensor& a, const Tensor& b) = 0;

  /// The column of the largest value of the one row; the first of equal ones.
  [[nodiscard]] virtual Tokens largest(const Tensor& row) = 0;

 protected:
  Resource& memory_;
};

/// Those for the memory of `memory`'s device. Throws std::runtime_error where there are none.
std::unique_ptr<Operators> make_operators(Resource& memory);

}  // namespace decode
