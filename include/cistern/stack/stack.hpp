// A stack opened from one line of text: `open("limit(2GiB) > cache > host")`. The text reads from
// the program to the device; `docs/stack-language.md` has the grammar and `cistern stages` the
// stages.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/core/buffer.hpp"
#include "cistern/core/ref.hpp"

namespace cistern {

/// Why a text names no stack: the text, a caret under the place, and what would have been accepted.
class StackError : public std::invalid_argument {
 public:
  StackError(std::string_view text, std::size_t position, std::size_t length,
             const std::string& message);

  /// The place, in bytes from the start of the text; never beyond its end.
  [[nodiscard]] std::size_t position() const noexcept { return position_; }
  [[nodiscard]] std::size_t length() const noexcept { return length_; }

  /// One line, without the text and the caret that `what` shows below it.
  [[nodiscard]] const std::string& message() const noexcept { return message_; }

 private:
  std::size_t position_;
  std::size_t length_;
  std::string message_;
};

/// Names for resources that the program already owns: words that are not names of the language.
using Bindings = std::map<std::string, Ref<Resource>, std::less<>>;

/// An open stack: owns its outermost stage. Closing it (or destroying it) lets go of the stage; if
/// blocks are still live a report says so and the stage stays until the last of them is freed.
/// Move-only.
class Stack {
 public:
  Stack() noexcept = default;
  Stack(Ref<Resource> outermost, std::string text) noexcept
      : outermost_(std::move(outermost)), text_(std::move(text)) {}
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  Stack(Stack&&) noexcept = default;
  Stack& operator=(Stack&&) noexcept = default;
  ~Stack() = default;

  /// The outermost stage. Not to be used after `close`.
  Resource& operator*() const noexcept { return *outermost_; }
  Resource* operator->() const noexcept { return outermost_.get(); }
  [[nodiscard]] const Ref<Resource>& resource() const noexcept { return outermost_; }
  explicit operator bool() const noexcept { return static_cast<bool>(outermost_); }

  /// Memory of this stack that frees itself. Throws `OutOfMemory`.
  [[nodiscard]] Buffer buffer(std::size_t bytes) const { return Buffer(*outermost_, bytes); }
  [[nodiscard]] Buffer buffer(const Request& request) const { return Buffer(*outermost_, request); }

  /// The same for a batch: all of it or, with `OutOfMemory`, none.
  [[nodiscard]] std::vector<Buffer> buffers(std::span<const Request> requests) const;

  /// The text it was opened from, recipes as they were written.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

  /// Lets go of the stack now and says what is still out.
  Outstanding close() noexcept;

 private:
  Ref<Resource> outermost_;
  std::string text_;
};

/// Opens a stack. Names in `bindings` stand for the program's own resources, at the device's place.
/// Environment variables that a recipe names are read now. Throws StackError if the text is wrong,
/// std::exception if a stage cannot be made.
[[nodiscard]] Stack open(std::string_view text, const Bindings& bindings = {});

/// The same; a wrong text is a value.
[[nodiscard]] tl::expected<Stack, StackError> try_open(std::string_view text,
                                                       const Bindings& bindings = {});

/// Says whether a text names a stack, without making any stage of it. What only its device knows,
/// such as how much memory a percentage is of, is looked at when it is opened.
[[nodiscard]] tl::expected<void, StackError> check(std::string_view text,
                                                   const Bindings& bindings = {});

/// The text with every recipe replaced by the stages it stands for now: environment variables that
/// it names are read. The other stages are not looked at.
[[nodiscard]] tl::expected<std::string, StackError> expand(std::string_view text);

/// The process's default resource: opened on first use from `CISTERN_STACK` or, where that is unset
/// or empty, as "cache > host", and never closed. Throws as `open` does; the next call tries again.
/// Thread-safe.
[[nodiscard]] Resource& default_resource();

}  // namespace cistern
