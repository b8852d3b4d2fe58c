// What can be wrong with a text, as a value: a place and a message. It becomes a `StackError`,
// which shows the text, at the public edge.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace cistern::language {

/// A stretch of the text, in bytes.
struct Span {
  std::size_t position = 0;
  std::size_t length = 0;
};

struct Problem {
  Span span;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Problem>;

inline tl::unexpected<Problem> problem(Span span, std::string message) {
  return tl::unexpected(Problem{.span = span, .message = std::move(message)});
}

/// Hands on the problem of a result of another type.
template <class T>
tl::unexpected<Problem> problem_of(Result<T>& result) {
  return tl::unexpected(std::move(result.error()));
}

}  // namespace cistern::language
