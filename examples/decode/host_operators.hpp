// The operators as loops on the CPU.
#pragma once

#include "operators.hpp"

namespace decode {

class HostOperators final : public Operators {
 public:
  using Operators::Operators;

  void upload(std::span<const float> from, const Tensor& to) override;
  void upload(std::span<const Token> from, const Tokens& to) override;
  [[nodiscard]] std::vector<float> download(const Tensor& from) override;
  [[nodiscard]] Token download_first(const Tokens& from) override;
  [[nodiscard]] Tensor embed(const Tokens& tokens, std::size_t count, const Tensor& table) override;
  [[nodiscard]] Tensor multiply(const Tensor& x, const Tensor& weight) override;
  [[nodiscard]] Tensor normalise(const Tensor& x, const Tensor& gain, double epsilon) override;
  [[nodiscard]] Tensor rotate(const Tensor& head, const Rotation& by) override;
  [[nodiscard]] Tensor columns(const Tensor& x, std::size_t rows, std::size_t first,
                               std::size_t count) override;
  void paste(const Tensor& part, Tensor& whole, std::size_t first) override;
  void copy_rows(const Tensor& from, std::size_t count, Tensor& to, std::size_t first) override;
  [[nodiscard]] Tensor mask_future(const Tensor& x, std::size_t past) override;
  [[nodiscard]] Tensor scale(const Tensor& x, float by) override;
  [[nodiscard]] Tensor softmax(const Tensor& x) override;
  [[nodiscard]] Tensor mix(const Tensor& weights, const Tensor& values) override;
  [[nodiscard]] Tensor silu(const Tensor& x) override;
  [[nodiscard]] Tensor product(const Tensor& a, const Tensor& b) override;
  [[nodiscard]] Tensor sum(const Tensor& a, const Tensor& b) override;
  [[nodiscard]] Tokens largest(const Tensor& row) override;
};

}  // namespace decode
