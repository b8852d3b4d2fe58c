#include "opencl_operators.hpp"

#include <stdexcept>
#include <string>

#include "cistern/core/transfer.hpp"
#include "opencl_kernels.hpp"

namespace decode {
namespace {

// In the order of `Kernel`.
constexpr const char* kernel_names[] = {  // NOLINT(modernize-avoid-c-arrays)
    "embed_rows",
    "multiply_rows",
    "inverse_root_mean_square",
    "scale_rows",
    "rotate_rows",
    "copy_columns",
    "paste_columns",
    "mask",
    "scale_all",
    "row_peaks",
    "row_exponentials",
    "row_totals",
    "divide_rows",
    "mix_rows",
    "silu_all",
    "multiply_all",
    "add_all",
    "index_of_largest"};

void check_call(cl_int code, const char* call) {
  if (code != CL_SUCCESS)
    throw std::runtime_error(std::string(call) + " failed with " + std::to_string(code));
}

template <class T>
T value_of(const cistern::Expected<T>& answer) {
  if (!answer) throw std::runtime_error(cistern::describe(answer.error()));
  if constexpr (!std::is_void_v<T>) return *answer;
}

cl_uint as_uint(std::size_t number) {
  return static_cast<cl_uint>(number);
}

}  // namespace

OpenClOperators::OpenClOperators(Resource& memory, cistern::OpenClDevice& device)
    : Operators(memory), device_(device) {
  if (device.limits().memory_is_address)
    throw std::runtime_error("the kernels take buffers: opencl(memory=buffer)");
  cl_int code = CL_SUCCESS;
  const char* source = kernel_source;
  program_ = clCreateProgramWithSource(device.context(), 1, &source, nullptr, &code);
  check_call(code, "clCreateProgramWithSource");
  const cl_device_id id = device.id();
  check_call(clBuildProgram(program_, 1, &id, "", nullptr, nullptr), "clBuildProgram");
  for (std::size_t i = 0; i < kernels; ++i) {
    kernels_[i] = clCreateKernel(program_, kernel_names[i], &code);
    check_call(code, "clCreateKernel");
  }
}

OpenClOperators::~OpenClOperators() {
  for (const cl_kernel kernel : kernels_) {
    if (kernel != nullptr) clReleaseKernel(kernel);
  }
  if (program_ != nullptr) clReleaseProgram(program_);
}

void OpenClOperators::set(cl_uint place, const cistern::Block& block) {
  // What is enqueued keeps the object alive.
  auto object = device_.object(block);
  if (!object) throw std::runtime_error(cistern::describe(object.error()));
  const cl_mem memory = object->get();
  check_call(clSetKernelArg(running_, place, sizeof(cl_mem), static_cast<const void*>(&memory)),
             "clSetKernelArg");
}

void OpenClOperators::set(cl_uint place, cl_uint number) {
  check_call(clSetKernelArg(running_, place, sizeof number, &number), "clSetKernelArg");
}

void OpenClOperators::set(cl_uint place, float number) {
  check_call(clSetKernelArg(running_, place, sizeof number, &number), "clSetKernelArg");
}

template <class... Arguments>
void OpenClOperators::run(Kernel kernel, std::size_t items, const Arguments&... arguments) {
  running_ = kernels_[kernel];
  cl_uint place = 0;
  (set(place++, arguments), ...);
  check_call(clEnqueueNDRangeKernel(device_.queue(), running_, 1, nullptr, &items, nullptr, 0,
                                    nullptr, nullptr),
             "clEnqueueNDRangeKernel");
}

void OpenClOperators::upload(std::span<const float> from, const Tensor& to) {
  value_of(device_.transfer()->upload(to.block(), 0, std::as_bytes(from), {}));
}

void OpenClOperators::upload(std::span<const Token> from, const Tokens& to) {
  value_of(device_.transfer()->upload(to.block(), 0, std::as_bytes(from), {}));
}

std::vector<float> OpenClOperators::download(const Tensor& from) {
  std::vector<float> values(from.size());
  value_of(
      device_.transfer()->download(std::as_writable_bytes(std::span(values)), from.block(), 0, {}));
  return values;
}

Token OpenClOperators::download_first(const Tokens& from) {
  Token token = 0;
  value_of(device_.transfer()->download(std::as_writable_bytes(std::span(&token, 1)), from.block(),
                                        0, {}));
  return token;
}

Tensor OpenClOperators::embed(const Tokens& tokens, std::size_t count, const Tensor& table) {
  Tensor result = tensor(count, table.columns());
  run(embed_rows, result.size(), tokens, table, result, as_uint(table.columns()));
  return result;
}

Tensor OpenClOperators::multiply(const Tensor& x, const Tensor& weight) {
  Tensor result = tensor(x.rows(), weight.rows());
  run(multiply_rows, result.size(), x, weight, result, as_uint(x.columns()),
      as_uint(weight.rows()));
  return result;
}

Tensor OpenClOperators::normalise(const Tensor& x, const Tensor& gain, double epsilon) {
  const Tensor inverse = tensor(x.rows(), 1);
  run(inverse_root_mean_square, x.rows(), x, inverse, as_uint(x.columns()),
      static_cast<float>(epsilon));
  Tensor result = tensor(x.rows(), x.columns());
  run(scale_rows, result.size(), x, inverse, gain, result, as_uint(x.columns()));
  return result;
}

Tensor OpenClOperators::rotate(const Tensor& head, const Rotation& by) {
  Tensor result = tensor(head.rows(), head.columns());
  run(rotate_rows, head.size() / 2, head, by.cosines, by.sines, result,
      as_uint(head.columns() / 2));
  return result;
}

Tensor OpenClOperators::columns(const Tensor& x, std::size_t rows, std::size_t first,
                                std::size_t count) {
  Tensor result = tensor(rows, count);
  run(copy_columns, result.size(), x, result, as_uint(x.columns()), as_uint(first), as_uint(count));
  return result;
}

void OpenClOperators::paste(const Tensor& part, Tensor& whole, std::size_t first) {
  run(paste_columns, part.size(), part, whole, as_uint(whole.columns()), as_uint(first),
      as_uint(part.columns()));
}

void OpenClOperators::copy_rows(const Tensor& from, std::size_t count, Tensor& to,
                                std::size_t first) {
  const std::size_t row = from.columns() * sizeof(float);
  value_of(device_.transfer()->copy(to.block(), first * row, from.block(), 0, count * row, {}));
}

Tensor OpenClOperators::mask_future(const Tensor& x, std::size_t past) {
  Tensor result = tensor(x.rows(), x.columns());
  run(mask, result.size(), x, result, as_uint(x.columns()), as_uint(past));
  return result;
}

Tensor OpenClOperators::scale(const Tensor& x, float by) {
  Tensor result = tensor(x.rows(), x.columns());
  run(scale_all, result.size(), x, result, by);
  return result;
}

Tensor OpenClOperators::softmax(const Tensor& x) {
  const cl_uint width = as_uint(x.columns());
  const Tensor peaks = tensor(x.rows(), 1);
  run(row_peaks, x.rows(), x, peaks, width);
  const Tensor exponentials = tensor(x.rows(), x.columns());
  run(row_exponentials, x.size(), x, peaks, exponentials, width);
  const Tensor totals = tensor(x.rows(), 1);
  run(row_totals, x.rows(), exponentials, totals, width);
  Tensor result = tensor(x.rows(), x.columns());
  run(divide_rows, x.size(), exponentials, totals, result, width);
  return result;
}

Tensor OpenClOperators::mix(const Tensor& weights, const Tensor& values) {
  Tensor result = tensor(weights.rows(), values.columns());
  run(mix_rows, result.size(), weights, values, result, as_uint(values.rows()),
      as_uint(values.columns()));
  return result;
}

Tensor OpenClOperators::silu(const Tensor& x) {
  Tensor result = tensor(x.rows(), x.columns());
  run(silu_all, result.size(), x, result);
  return result;
}

Tensor OpenClOperators::product(const Tensor& a, const Tensor& b) {
  Tensor result = tensor(a.rows(), a.columns());
  run(multiply_all, result.size(), a, b, result);
  return result;
}

Tensor OpenClOperators::sum(const Tensor& a, const Tensor& b) {
  Tensor result = tensor(a.rows(), a.columns());
  run(add_all, result.size(), a, b, result);
  return result;
}

Tokens OpenClOperators::largest(const Tensor& row) {
  Tokens result = tokens(1);
  run(index_of_largest, 1, row, result, as_uint(row.columns()));
  return result;
}

}  // namespace decode
