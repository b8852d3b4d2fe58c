// The operators as kernels on an OpenCL device, one after the other in its own queue. Memory is
// given to them as objects, whatever part of one a pool has handed out.
#pragma once

#include <cstdint>

#include <CL/cl.h>

#include "cistern/device/opencl.hpp"
#include "operators.hpp"

namespace decode {

class OpenClOperators final : public Operators {
 public:
  /// Compiles the kernels. `device` is the one that `memory` stands on; of memory that is made of
  /// buffers. Throws std::runtime_error where it is not, or the compiler fails.
  OpenClOperators(Resource& memory, cistern::OpenClDevice& device);
  OpenClOperators(const OpenClOperators&) = delete;
  OpenClOperators& operator=(const OpenClOperators&) = delete;
  OpenClOperators(OpenClOperators&&) = delete;
  OpenClOperators& operator=(OpenClOperators&&) = delete;
  ~OpenClOperators() override;

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

 private:
  enum Kernel : std::uint8_t {
    embed_rows,
    multiply_rows,
    inverse_root_mean_square,
    scale_rows,
    rotate_rows,
    copy_columns,
    paste_columns,
    mask,
    scale_all,
    row_peaks,
    row_exponentials,
    row_totals,
    divide_rows,
    mix_rows,
    silu_all,
    multiply_all,
    add_all,
    index_of_largest,
    kernels
  };

  void set(cl_uint place, const cistern::Block& block);
  void set(cl_uint place, cl_uint number);
  void set(cl_uint place, float number);
  void set(cl_uint place, const Tensor& tensor) { set(place, tensor.block()); }
  void set(cl_uint place, const Tokens& tokens) { set(place, tokens.block()); }
  /// Enqueues a kernel of so many work items.
  template <class... Arguments>
  void run(Kernel kernel, std::size_t items, const Arguments&... arguments);

  cistern::OpenClDevice& device_;
  cl_program program_ = nullptr;
  cl_kernel kernels_[kernels] = {};  // NOLINT(modernize-avoid-c-arrays): indexed by an enumeration
  cl_kernel running_ = nullptr;
};

}  // namespace decode
