// The source of the kernels: an element of the result, or a row of it, for each work item. Sums are
// taken in the order of the columns.
#pragma once

namespace decode {

constexpr const char* kernel_source = R"(
kernel void embed_rows(global const uint* tokens, global const float* table, global float* result,
                       uint columns) {
  uint i = get_global_id(0);
  result[i] = table[tokens[i / columns] * columns + i % columns];
}

kernel void multiply_rows(global const float* x, global const float* weight, global float* result,
                          uint inner, uint outputs) {
  uint i = get_global_id(0);
  global const float* a = x + i / outputs * inner;
  global const float* b = weight + i % outputs * inner;
  float sum = 0;
  for (uint k = 0; k < inner; ++k)
    sum += a[k] * b[k];
  result[i] = sum;
}

kernel void inverse_root_mean_square(global const float* x, global float* result, uint columns,
                                     float epsilon) {
  uint row = get_global_id(0);
  float squares = 0;
  for (uint k = 0; k < columns; ++k)
    squares += x[row * columns + k] * x[row * columns + k];
  result[row] = 1 / sqrt(squares / columns + epsilon);
}

kernel void scale_rows(global const float* x, global const float* factors, global const float* gain,
                       global float* result, uint columns) {
  uint i = get_global_id(0);
  result[i] = x[i] * factors[i / columns] * gain[i % columns];
}

kernel void rotate_rows(global const float* head, global const float* cosines,
                        global const float* sines, global float* result, uint half_width) {
  uint i = get_global_id(0);
  uint a = i / half_width * 2 * half_width + i % half_width;
  uint b = a + half_width;
  result[a] = head[a] * cosines[i] - head[b] * sines[i];
  result[b] = head[b] * cosines[i] + head[a] * sines[i];
}

kernel void copy_columns(global const float* x, global float* result, uint columns, uint first,
                         uint count) {
  uint i = get_global_id(0);
  result[i] = x[i / count * columns + first + i % count];
}

kernel void paste_columns(global const float* part, global float* whole, uint columns, uint first,
                          uint count) {
  uint i = get_global_id(0);
  whole[i / count * columns + first + i % count] = part[i];
}

kernel void mask(global const float* x, global float* result, uint columns, uint past) {
  uint i = get_global_id(0);
  result[i] = i % columns <= past + i / columns ? x[i] : -INFINITY;
}

kernel void scale_all(global const float* x, global float* result, float by) {
  uint i = get_global_id(0);
  result[i] = x[i] * by;
}

kernel void row_peaks(global const float* x, global float* result, uint columns) {
  uint row = get_global_id(0);
  float peak = x[row * columns];
  for (uint k = 1; k < columns; ++k)
    peak = fmax(peak, x[row * columns + k]);
  result[row] = peak;
}

kernel void row_exponentials(global const float* x, global const float* peaks, global float* result,
                             uint columns) {
  uint i = get_global_id(0);
  result[i] = exp(x[i] - peaks[i / columns]);
}

kernel void row_totals(global const float* x, global float* result, uint columns) {
  uint row = get_global_id(0);
  float total = 0;
  for (uint k = 0; k < columns; ++k)
    total += x[row * columns + k];
  result[row] = total;
}

kernel void divide_rows(global const float* x, global const float* totals, global float* result,
                        uint columns) {
  uint i = get_global_id(0);
  result[i] = x[i] / totals[i / columns];
}

kernel void mix_rows(global const float* weights, global const float* values, global float* result,
                     uint inner, uint columns) {
  uint i = get_global_id(0);
  float sum = 0;
  for (uint k = 0; k < inner; ++k)
    sum += weights[i / columns * inner + k] * values[k * columns + i % columns];
  result[i] = sum;
}

kernel void silu_all(global const float* x, global float* result) {
  uint i = get_global_id(0);
  result[i] = x[i] / (1 + exp(-x[i]));
}

kernel void multiply_all(global const float* a, global const float* b, global float* result) {
  uint i = get_global_id(0);
  result[i] = a[i] * b[i];
}

kernel void add_all(global const float* a, global const float* b, global float* result) {
  uint i = get_global_id(0);
  result[i] = a[i] + b[i];
}

kernel void index_of_largest(global const float* row, global uint* result, uint columns) {
  uint largest = 0;
  for (uint k = 1; k < columns; ++k)
    if (row[k] > row[largest]) largest = k;
  result[0] = largest;
}
)";

}  // namespace decode
