// Reads a pickle as plain data. A pickle is a program for a stack machine that can import and call
// anything; here only the instructions that build dictionaries, lists, tuples, texts and numbers
// exist, and every other one is refused by its name. Nothing is recursive, nothing is sized by a
// number in the file, and containers refer to one another by index, so that deep, shared and cyclic
// ones cost no more than what their bytes spell out.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"

namespace cistern::detail::pickle {

enum class Kind : std::uint8_t {
  none,
  boolean,
  natural,   // payload is the number
  negative,  // payload is the number in two's complement
  wide,  // an integer of more than 64 bits, or a real: not kept, as nothing here needs its value
  text,  // payload is its offset in the file
  list,  // payload is an index into Document::containers; so for the next two
  tuple,
  dictionary,  // its items are key, value, key, value...
};

struct Value {
  Kind kind = Kind::none;
  std::uint32_t length = 0;  // of a text
  std::uint64_t payload = 0;
};

struct Container {
  std::uint64_t position = 0;  // of the instruction that made it, for errors
  std::vector<Value> items;
};

class Document {
 public:
  explicit Document(std::string_view bytes) : bytes_(bytes) {}

  Value root;
  std::vector<Container> containers;

  [[nodiscard]] const Container& container(const Value& value) const {
    return containers[static_cast<std::size_t>(value.payload)];
  }

  /// The characters of a text; empty for any other value.
  [[nodiscard]] std::string_view text(const Value& value) const {
    if (value.kind != Kind::text) return {};
    return bytes_.substr(static_cast<std::size_t>(value.payload), value.length);
  }

  /// The value under `key`, or null. O(keys): dictionaries of records are small.
  [[nodiscard]] const Value* find(const Container& dictionary, std::string_view key) const;

 private:
  std::string_view bytes_;
};

/// Runs the pickle in `bytes`, which the document refers to from then on. What it builds may take
/// `max_bytes`.
tl::expected<Document, TraceError> load(std::string_view bytes, std::uint64_t max_bytes);

}  // namespace cistern::detail::pickle
