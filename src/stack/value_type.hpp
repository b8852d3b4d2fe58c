// The types of parameters. A `Type<T>` is a value that knows how a `T` is written: what accepts it,
// how it is read and how it is shown, so that a parameter's documentation, its errors and its
// default all come from one place. Larger types are made of smaller ones: `or_none(bounded(size(),
// at_least(1)), unbounded)`.
#pragma once

#include <charconv>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/stack/stack.hpp"
#include "stack/syntax.hpp"
#include "stack/wording.hpp"

namespace cistern::language {

/// What a value may refer to outside the text.
struct Context {
  const Resource* below = nullptr;  // the stage; null while a text is only checked
  const Bindings* bindings = nullptr;
};

template <class T>
struct Type {
  std::string name;    // "size", "one of evict, reject"
  std::string bounds;  // "at least 1"; may be empty
  std::function<Result<T>(const Value&, const Context&)> read;
  std::function<std::string(const T&)> write;
  bool problems_name_parameter = true;  // else a problem says enough by its place
};

/// Digits with B, KiB ... or kB ...
Type<std::size_t> size();

/// The same, or a percentage, 0% to 100%, of the memory that the device has in all.
Type<std::size_t> size_or_percent();

Type<std::chrono::nanoseconds> duration();

/// Not negative, finite.
Type<double> real();

/// The same, also written as a percentage: 0.15 is 15%.
Type<double> ratio();

/// A word or quoted text, not empty.
Type<std::string> text();

Type<bool> boolean();

// --- how problems with a value are worded ---

/// "'4GX' is not a size; write 4096, 64KiB or 1.5GiB"
tl::unexpected<Problem> not_a(const Value& value, std::string_view type, std::string_view examples);

/// "'0' is out of range; it must be at least 1"
tl::unexpected<Problem> out_of_range(const Value& value, std::string_view bounds);

/// "'evit' is not one of evict, reject; did you mean 'evict'?"; `otherwise` stands behind the
/// words.
tl::unexpected<Problem> not_one_of(const Value& value, const Words& words,
                                   const std::string& otherwise);

// --- generic types ---

/// A whole number that fits `T`.
template <std::unsigned_integral T>
Type<T> number() {
  return {.name = "number",
          .bounds = "",
          .read = [](const Value& value, const Context&) -> Result<T> {
            T result{};
            const char* const end = value.text.data() + value.text.size();
            const auto [stop, error] = std::from_chars(value.text.data(), end, result);
            if (value.form != Value::Form::word || stop != end || value.text.empty() ||
                error == std::errc::invalid_argument) {
              return not_a(value, "whole number of 0 or more", "0, 16 or 1000");
            }
            if (error != std::errc{}) {
              return out_of_range(value, "at most " + std::to_string(T(-1)));
            }
            return result;
          },
          .write = [](const T& number) { return std::to_string(number); }};
}

/// One of `words`, each standing for a value. `otherwise` says what the larger type that is made of
/// it accepts besides.
template <class T>
Type<T> one_of(std::vector<std::pair<std::string, T>> words, const std::string& otherwise = "") {
  const auto names = [](const auto& pairs) {
    Words list;
    for (const auto& [name, meaning] : pairs)
      list.push_back(name);
    return list;
  };
  return {.name = "one of " + listed(names(words)) + otherwise,
          .bounds = "",
          .read = [words, names, otherwise](const Value& value, const Context&) -> Result<T> {
            if (value.form == Value::Form::word) {
              for (const auto& [name, meaning] : words) {
                if (name == value.text) return meaning;
              }
            }
            return not_one_of(value, names(words), otherwise);
          },
          .write =
              [words](const T& sought) {
                for (const auto& [name, meaning] : words) {
                  if (meaning == sought) return name;
                }
                return std::string();
              }};
}

/// `type`, or a word for one value.
template <class T>
Type<T> or_word(Type<T> type, const std::string& word, T meaning) {
  return {.name = type.name + " or " + word,
          .bounds = type.bounds,
          .read = [read = type.read, word, meaning](const Value& value,
                                                    const Context& context) -> Result<T> {
            if (value.form == Value::Form::word && value.text == word) return meaning;
            Result<T> result = read(value, context);
            if (!result) result.error().message += "; or " + word;
            return result;
          },
          .write = [write = type.write, word,
                    meaning](const T& value) { return value == meaning ? word : write(value); }};
}

/// `type`, or the word `none` for the value that stands for no bound.
template <class T>
Type<T> or_none(Type<T> type, T none) {
  return or_word(std::move(type), "none", std::move(none));
}

/// The values that `holds` accepts, and how that is said after "must be".
template <class T>
struct Bound {
  std::string text;
  std::function<bool(const T&)> holds;
};

Bound<std::size_t> at_least(std::size_t least);
Bound<double> at_least(double least);
Bound<std::size_t> at_most(std::size_t most);

/// A size of a power of two, `least` to `most`.
Bound<std::size_t> power_of_two(std::size_t least, std::size_t most);

/// A ratio from 0% to 100%.
Bound<double> probability();

template <class T>
Type<T> bounded(Type<T> type, Bound<T> bound) {
  type.bounds = bound.text;
  type.read = [read = type.read, bound](const Value& value, const Context& context) -> Result<T> {
    Result<T> result = read(value, context);
    if (result && !bound.holds(*result)) return out_of_range(value, bound.text);
    return result;
  };
  return type;
}

}  // namespace cistern::language
