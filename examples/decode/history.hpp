// The keys and values of the tokens read so far (the KV cache): a layer keeps one of each. Grows by
// a block of tokens at a time into new memory, and copies, as simple runtimes do. Not thread-safe.
#pragma once

#include <cstddef>
#include <utility>

#include "operators.hpp"

namespace decode {

class GrowingRows {
 public:
  static constexpr std::size_t block = 16;  // tokens

  [[nodiscard]] std::size_t rows() const noexcept { return used_; }

  /// Adds the rows of `more`, which always have the same number of columns. O(rows added), and
  /// O(rows) when it grows.
  void append(Operators& op, const Tensor& more) {
    if (used_ + more.rows() > storage_.rows()) grow(op, used_ + more.rows(), more.columns());
    op.copy_rows(more, more.rows(), storage_, used_);
    used_ += more.rows();
  }

  /// A copy of `count` columns from `first` on: one head of all tokens.
  [[nodiscard]] Tensor columns(Operators& op, std::size_t first, std::size_t count) const {
    return op.columns(storage_, used_, first, count);
  }

 private:
  void grow(Operators& op, std::size_t rows, std::size_t columns) {
    Tensor larger = op.tensor((rows + block - 1) / block * block, columns);
    if (used_ > 0) op.copy_rows(storage_, used_, larger, 0);
    storage_ = std::move(larger);
  }

  Tensor storage_;
  std::size_t used_ = 0;
};

struct History {
  GrowingRows keys;  // turned by their positions
  GrowingRows values;
};

}  // namespace decode
