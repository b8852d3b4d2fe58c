// What the readers of line-based formats share: the lines of a text with their numbers, and numbers
// in fields.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace cistern::detail {

/// Goes through the lines of a text. Either line end is accepted, and the last line may lack one.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  bool next() {
    if (rest_.empty()) return false;
    const std::size_t end = rest_.find('\n');
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line_.ends_with('\r')) line_.remove_suffix(1);
    ++number_;
    return true;
  }

  [[nodiscard]] std::string_view line() const { return line_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }  // counted from 1

 private:
  std::string_view rest_;
  std::string_view line_;
  std::uint64_t number_ = 0;
};

/// The number that all of `text` is, if it is one and fits 64 bits.
inline std::optional<std::uint64_t> parse_number(std::string_view text, int base = 10) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

}  // namespace cistern::detail
