// Loops that a compiler turns into vector instructions without being allowed to reorder sums.
#include "host_operators.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

namespace decode {
namespace {

/// Sixteen running sums, folded pairwise: the order of the additions depends on the length alone.
float dot(std::span<const float> left, std::span<const float> right) noexcept {
  constexpr std::size_t lanes = 16;
  const float* a = left.data();
  const float* b = right.data();
  const std::size_t count = left.size();
  std::array<float, lanes> sums{};
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane)
      sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; ++i)
    sums[i % lanes] += a[i] * b[i];
  for (std::size_t half = lanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane)
      sums[lane] += sums[lane + half];
  }
  return sums[0];
}

template <class Function>
Tensor map(Resource& memory, const Tensor& x, Function function) {
  Tensor result(memory, x.rows(), x.columns());
  std::transform(x.values().begin(), x.values().end(), result.values().begin(), function);
  return result;
}

template <class Function>
Tensor zip(Resource& memory, const Tensor& a, const Tensor& b, Function function) {
  Tensor result(memory, a.rows(), a.columns());
  std::transform(a.values().begin(), a.values().end(), b.values().begin(), result.values().begin(),
                 function);
  return result;
}

}  // namespace

void HostOperators::upload(std::span<const float> from, const Tensor& to) {
  std::ranges::copy(from, to.host().begin());
}

void HostOperators::upload(std::span<const Token> from, const Tokens& to) {
  std::ranges::copy(from, to.host().begin());
}

std::vector<float> HostOperators::download(const Tensor& from) {
  return {from.values().begin(), from.values().end()};
}

Token HostOperators::download_first(const Tokens& from) {
  return from.values().front();
}

Tensor HostOperators::embed(const Tokens& tokens, std::size_t count, const Tensor& table) {
  Tensor result(memory_, count, table.columns());
  for (std::size_t i = 0; i < count; ++i)
    std::ranges::copy(table.row(tokens.values()[i]), result.row(i).begin());
  return result;
}

Tensor HostOperators::multiply(const Tensor& x, const Tensor& weight) {
  Tensor result(memory_, x.rows(), weight.rows());
  for (std::size_t output = 0; output < weight.rows(); ++output) {
    for (std::size_t i = 0; i < x.rows(); ++i) {
      result.row(i)[output] = dot(x.row(i), weight.row(output));
    }
  }
  return result;
}

Tensor HostOperators::normalise(const Tensor& x, const Tensor& gain, double epsilon) {
  Tensor inverse(memory_, x.rows(), 1);
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const double squares = static_cast<double>(dot(x.row(i), x.row(i)));
    const double mean = squares / static_cast<double>(x.columns());
    inverse.values()[i] = static_cast<float>(1 / std::sqrt(mean + epsilon));
  }
  Tensor result(memory_, x.rows(), x.columns());
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const float factor = inverse.values()[i];
    std::ranges::transform(x.row(i), gain.row(0), result.row(i).begin(),
                           [factor](float value, float g) { return value * factor * g; });
  }
  return result;
}

Tensor HostOperators::rotate(const Tensor& head, const Rotation& by) {
  const std::size_t half = head.columns() / 2;
  Tensor result(memory_, head.rows(), head.columns());
  for (std::size_t i = 0; i < head.rows(); ++i) {
    const auto from = head.row(i);
    const auto to = result.row(i);
    const auto cosine = by.cosines.row(i);
    const auto sine = by.sines.row(i);
    for (std::size_t pair = 0; pair < half; ++pair) {
      to[pair] = from[pair] * cosine[pair] - from[pair + half] * sine[pair];
      to[pair + half] = from[pair + half] * cosine[pair] + from[pair] * sine[pair];
    }
  }
  return result;
}

Tensor HostOperators::columns(const Tensor& x, std::size_t rows, std::size_t first,
                              std::size_t count) {
  Tensor result(memory_, rows, count);
  for (std::size_t i = 0; i < rows; ++i) {
    std::ranges::copy(x.row(i).subspan(first, count), result.row(i).begin());
  }
  return result;
}

void HostOperators::paste(const Tensor& part, Tensor& whole, std::size_t first) {
  for (std::size_t i = 0; i < part.rows(); ++i) {
    std::ranges::copy(part.row(i), whole.row(i).subspan(first).begin());
  }
}

void HostOperators::copy_rows(const Tensor& from, std::size_t count, Tensor& to,
                              std::size_t first) {
  std::ranges::copy(from.values().first(count * from.columns()), to.row(first).begin());
}

Tensor HostOperators::mask_future(const Tensor& x, std::size_t past) {
  Tensor result(memory_, x.rows(), x.columns());
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const std::size_t seen = past + i + 1;
    std::ranges::copy(x.row(i).first(seen), result.row(i).begin());
    std::ranges::fill(result.row(i).subspan(seen), -std::numeric_limits<float>::infinity());
  }
  return result;
}

Tensor HostOperators::scale(const Tensor& x, float by) {
  return map(memory_, x, [by](float value) { return value * by; });
}

Tensor HostOperators::softmax(const Tensor& x) {
  Tensor peaks(memory_, x.rows(), 1);
  for (std::size_t i = 0; i < x.rows(); ++i)
    peaks.values()[i] = std::ranges::max(x.row(i));

  Tensor exponentials(memory_, x.rows(), x.columns());
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const float peak = peaks.values()[i];
    std::ranges::transform(x.row(i), exponentials.row(i).begin(),
                           [peak](float value) { return std::exp(value - peak); });
  }

  Tensor totals(memory_, x.rows(), 1);
  for (std::size_t i = 0; i < x.rows(); ++i) {
    float total = 0;
    for (const float value : exponentials.row(i))
      total += value;
    totals.values()[i] = total;
  }

  Tensor result(memory_, x.rows(), x.columns());
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const float total = totals.values()[i];
    std::ranges::transform(exponentials.row(i), result.row(i).begin(),
                           [total](float value) { return value / total; });
  }
  return result;
}

Tensor HostOperators::mix(const Tensor& weights, const Tensor& values) {
  Tensor result(memory_, weights.rows(), values.columns());
  for (std::size_t i = 0; i < weights.rows(); ++i) {
    float* to = result.row(i).data();
    std::fill_n(to, values.columns(), 0.0F);
    for (std::size_t j = 0; j < values.rows(); ++j) {
      const float weight = weights.row(i)[j];
      const float* from = values.row(j).data();
      for (std::size_t c = 0; c < values.columns(); ++c)
        to[c] += weight * from[c];
    }
  }
  return result;
}

Tensor HostOperators::silu(const Tensor& x) {
  return map(memory_, x, [](float value) { return value / (1 + std::exp(-value)); });
}

Tensor HostOperators::product(const Tensor& a, const Tensor& b) {
  return zip(memory_, a, b, std::multiplies<float>());
}

Tensor HostOperators::sum(const Tensor& a, const Tensor& b) {
  return zip(memory_, a, b, std::plus<float>());
}

Tokens HostOperators::largest(const Tensor& row) {
  Tokens result(memory_, 1, 1);
  const auto values = row.row(0);
  result.values()[0] = static_cast<Token>(std::ranges::max_element(values) - values.begin());
  return result;
}

}  // namespace decode
