// The small files in which Linux says how things stand, read without the heap: they are looked at
// when memory has run out.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace cistern {

class SystemFile {
 public:
  /// Reads the beginning of the file; nothing where it cannot be read.
  explicit SystemFile(const char* path) noexcept {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    for (ssize_t read = 1; read > 0 && length_ < content_.size();) {
      read = ::read(file, content_.data() + length_, content_.size() - length_);
      if (read > 0) length_ += static_cast<std::size_t>(read);
    }
    ::close(file);
  }

  [[nodiscard]] std::string_view text() const noexcept { return {content_.data(), length_}; }

  /// The whole number that the file begins with, or that stands behind `key` at the start of a
  /// line.
  [[nodiscard]] std::optional<std::size_t> number(std::string_view key = {}) const noexcept {
    for (std::string_view rest = text(); !rest.empty();) {
      const std::size_t end = std::min(rest.find('\n'), rest.size() - 1);
      if (rest.starts_with(key)) return number_in(rest.substr(key.size(), end - key.size() + 1));
      if (key.empty()) return std::nullopt;
      rest.remove_prefix(end + 1);
    }
    return std::nullopt;
  }

 private:
  static std::optional<std::size_t> number_in(std::string_view text) noexcept {
    text.remove_prefix(std::min(text.find_first_not_of(" \t:"), text.size()));
    std::size_t number = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{}) return std::nullopt;
    return number;
  }

  std::array<char, 8192> content_{};
  std::size_t length_ = 0;
};

}  // namespace cistern
