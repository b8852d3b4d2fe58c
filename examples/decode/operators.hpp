// The arithmetic, one operator at a time and none in place, as array frameworks run it: each takes
// what it returns, and the scratch it needs, from `memory`. Every element of a result is written
// before it is read, and sums are taken in an order that depends on shapes alone, so results are
// the same to the bit whatever the memory held and wherever it lies.
#pragma once

#include <cstddef>
#include <span>

#include "tensor.hpp"

namespace decode {

using cistern::Resource;

/// The angles of some positions, one row each: half as many columns as a head is wide.
struct Rotation {
  Tensor cosines;
  Tensor sines;
};

/// The rows of `table` that `tokens` name.
Tensor embed(Resource& memory, std::span<const Token> tokens, const Tensor& table);

/// Each row of `x` times each row of `weight`. The result has a row for each of `x`, a column for
/// each of `weight`.
Tensor multiply(Resource& memory, const Tensor& x, const Tensor& weight);

/// Each row divided by its root mean square, times `gain`. https://arxiv.org/abs/1910.07467
Tensor normalise(Resource& memory, const Tensor& x, const Tensor& gain, double epsilon);

/// The angles of `count` positions from `first` on. https://arxiv.org/abs/2104.09864
Rotation rotation(Resource& memory, std::size_t first, std::size_t count, std::size_t head_width,
                  double base);

/// One head with each row turned by its position; the halves of a row are the coordinates.
Tensor rotate(Resource& memory, const Tensor& head, const Rotation& by);

/// A copy of `count` columns from `first` on, of the first `rows` rows.
Tensor columns(Resource& memory, const Tensor& x, std::size_t rows, std::size_t first,
               std::size_t count);

/// Writes `part` over the columns of `whole` from `first` on.
void paste(const Tensor& part, Tensor& whole, std::size_t first);

/// `x` with minus infinity where a row would look at a later position: beyond column `past` in row
/// 0, and so on.
Tensor mask_future(Resource& memory, const Tensor& x, std::size_t past);

Tensor scale(Resource& memory, const Tensor& x, float by);

/// The exponentials of each row divided by their sum.
Tensor softmax(Resource& memory, const Tensor& x);

/// Each row of `weights` as weights of the rows of `values`: a plain matrix product.
Tensor mix(Resource& memory, const Tensor& weights, const Tensor& values);

/// x * sigmoid(x)
Tensor silu(Resource& memory, const Tensor& x);

Tensor product(Resource& memory, const Tensor& a, const Tensor& b);
Tensor sum(Resource& memory, const Tensor& a, const Tensor& b);

/// The column of the largest value of the one row; the first of equal ones.
Tokens largest(Resource& memory, const Tensor& row);

}  // namespace decode
