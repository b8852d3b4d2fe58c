// The tree of a text. It knows nothing of stages: a word stays the text it is until the declared
// type of the parameter that it is given to reads it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stack/problem.hpp"

namespace cistern::language {

struct StageSyntax;

/// Outermost first.
using StackSyntax = std::vector<StageSyntax>;

struct Value {
  enum class Form : std::uint8_t {
    word,   // 4096, 64KiB, 90%, evict: `text`
    text,   // "a path": `text`, without quotes and escapes
    list,   // [4KiB, 64KiB]: `list`
    stack,  // cache(buckets=fit) > host: `stack`; a single stage without parentheses is a word
  };

  Form form = Form::word;
  Span span;
  std::string text;
  std::vector<Value> list;
  StackSyntax stack;
};

struct Argument {
  std::string key;  // empty: positional
  Span key_span;
  Value value;

  /// From the key, where there is one, to the end of the value.
  [[nodiscard]] Span span() const {
    if (key.empty()) return value.span;
    return {key_span.position, value.span.position + value.span.length - key_span.position};
  }
};

struct StageSyntax {
  std::string name;
  Span span;   // of the name
  Span whole;  // with its parentheses
  std::vector<Argument> arguments;
};

}  // namespace cistern::language
