// The keys and values of the tokens read so far (the KV cache): a layer keeps one of each. Grows by
// a block of tokens at a time into new memory, and copies, as simple runtimes do. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>

#include "operators.hpp"

namespace decode {

class GrowingRows {
 public:
  static constexpr std::size_t block = 16;  // tokens

  [[nodiscard]] std::size_t rows() const noexcept { return used_; }

  /// Adds the rows of `more`, which always have the same number of columns. O(rows added), and
  /// O(rows) when it grows.
  void append(Resource& memory, const Tensor& more) {
    if (used_ + more.rows() > storage_.rows()) grow(memory, used_ + more.rows(), more.columns());
    for (std::size_t i = 0; i < more.rows(); ++i) {
      std::ranges::copy(more.row(i), storage_.row(used_ + i).begin());
    }
    used_ += more.rows();
  }

  /// A copy of `count` columns from `first` on: one head of all tokens.
  [[nodiscard]] Tensor columns(Resource& memory, std::size_t first, std::size_t count) const {
    return decode::columns(memory, storage_, used_, first, count);
  }

 private:
  void grow(Resource& memory, std::size_t rows, std::size_t columns) {
    Tensor larger(memory, (rows + block - 1) / block * block, columns);
    std::ranges::copy(storage_.values().first(used_ * columns), larger.values().begin());
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
