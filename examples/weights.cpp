// Writes the trace of a program that loads the weights of a large model: 851 tensors of 17.26 GB,
// each allocated once and none freed. What a pool loses by rounding it loses here for good:
//
//   weights > weights.trace
//   cistern replay weights.trace --stack 'cache(buckets=pow2, idle_ratio=none) > simulated(64GiB)'
//
// The shapes are those of a hybrid transformer of 64 layers and 27e9 parameters: 48 layers of
// linear attention and 16 of full attention, quantised in blocks of 256 weights. Half of the
// feed-forward networks' last matrices have 6 bits, the rest of those networks 4; attention has 4
// to 6.
#include <cstdint>
#include <cstdio>

#include <fmt/format.h>

#include "cistern/trace/event.hpp"
#include "cistern/trace/write.hpp"

namespace {

/// How weights are stored: so many bytes for so many of them.
struct Storage {
  std::uint64_t bytes;
  std::uint64_t weights;
};
constexpr Storage plain{4, 1};  // 32-bit floats
constexpr Storage four_bits{144, 256};
constexpr Storage five_bits{176, 256};
constexpr Storage six_bits{210, 256};

class Weights {
 public:
  void tensor(Storage storage, std::uint64_t columns, std::uint64_t rows = 1) {
    const std::uint64_t bytes = columns * rows / storage.weights * storage.bytes;
    const std::uint64_t number = trace_.events.size() + 1;
    trace_.events.push_back({.sequence = number, .id = number, .bytes = bytes});
    total_ += bytes;
  }

  [[nodiscard]] const cistern::Trace& trace() const { return trace_; }
  [[nodiscard]] std::uint64_t total() const { return total_; }

 private:
  cistern::Trace trace_;
  std::uint64_t total_ = 0;
};

constexpr std::uint64_t layers = 64;
constexpr std::uint64_t hidden = 5120;
constexpr std::uint64_t inner = 17408;  // of the feed-forward networks
constexpr std::uint64_t vocabulary = 248320;

void full_attention(Weights& weights) {
  constexpr std::uint64_t head = 256;
  constexpr std::uint64_t heads = 24;
  constexpr std::uint64_t shared_heads = 4;            // of keys and values
  weights.tensor(six_bits, hidden, 2 * heads * head);  // queries and their gates
  weights.tensor(six_bits, hidden, shared_heads * head);
  weights.tensor(six_bits, hidden, shared_heads * head);
  weights.tensor(plain, head);  // norms of queries and keys
  weights.tensor(plain, head);
  weights.tensor(five_bits, heads * head, hidden);
}

void linear_attention(Weights& weights) {
  constexpr std::uint64_t head = 128;
  constexpr std::uint64_t key_heads = 16;
  constexpr std::uint64_t value_heads = 48;
  constexpr std::uint64_t mixed = (2 * key_heads + value_heads) * head;
  weights.tensor(five_bits, hidden, mixed);               // queries, keys and values
  weights.tensor(five_bits, hidden, value_heads * head);  // gates
  weights.tensor(four_bits, hidden, value_heads);         // decay
  weights.tensor(four_bits, hidden, value_heads);         // strength of what is written
  weights.tensor(plain, value_heads);                     // the decay's scale and offset
  weights.tensor(plain, value_heads);
  weights.tensor(plain, 4, mixed);  // convolution
  weights.tensor(plain, head);      // norm
  weights.tensor(five_bits, value_heads * head, hidden);
}

void layer(Weights& weights, std::uint64_t index) {
  // The first and the last eighth of the layers, and every third between, get more bits.
  const bool is_sensitive =
      index < layers / 8 || index >= layers / 8 * 7 || (index - layers / 8) % 3 == 2;
  weights.tensor(plain, hidden);  // norm
  if (index % 4 == 3) {
    full_attention(weights);
  } else {
    linear_attention(weights);
  }
  weights.tensor(plain, hidden);  // norm
  weights.tensor(four_bits, hidden, inner);
  weights.tensor(four_bits, hidden, inner);
  weights.tensor(is_sensitive ? six_bits : four_bits, inner, hidden);
}

}  // namespace

int main(int count, char** words) {
  const std::string file = count > 1 ? words[1] : "-";
  if (count > 2 || (file.starts_with('-') && file != "-")) {
    fmt::print(stderr,
               "usage: weights [FILE]      the trace; standard output where none is named\n");
    return 2;
  }
  Weights weights;
  weights.tensor(four_bits, hidden, vocabulary);  // embedding
  for (std::uint64_t index = 0; index < layers; ++index)
    layer(weights, index);
  weights.tensor(plain, hidden);                 // norm
  weights.tensor(six_bits, hidden, vocabulary);  // output

  const auto written = cistern::write_trace(weights.trace(), file, cistern::TraceFormat::text);
  if (!written) {
    fmt::print(stderr, "{}\n", written.error().text());
    return 1;
  }
  fmt::print(stderr, "{} tensors of {} bytes\n", weights.trace().events.size(), weights.total());
  return 0;
}
