#include "stack/wording.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace cistern::language {
namespace {

constexpr std::size_t longest_quote = 40;
constexpr std::size_t most_edits = 2;

/// Characters to insert, delete or replace, or neighbours to swap, that make `a` of `b` (the
/// optimal string alignment distance). O(product of the lengths).
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before_last.swap(last);
    last.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

/// Short words are all within two edits of one another: at least half of the shorter must be left.
bool resembles(std::string_view word, std::string_view candidate, std::size_t distance) {
  return distance <= std::min(most_edits, std::min(word.size(), candidate.size()) / 2);
}

}  // namespace

std::string visible(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ') c = ' ';
    if (byte > '~') c = '.';
  }
  return line;
}

std::string in_quotes(std::string_view text) {
  if (text.size() <= longest_quote) return "'" + visible(text) + "'";
  return "'" + visible(text.substr(0, longest_quote)) + "...'";
}

std::string character(char c) {
  if (c >= ' ' && c <= '~') return in_quotes({&c, 1});
  constexpr std::string_view digits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(c);
  return std::string("byte 0x") + digits[byte / 16] + digits[byte % 16];
}

std::string listed(const Words& words) {
  std::string list;
  for (const std::string_view word : words) {
    if (!list.empty()) list += ", ";
    list += word;
  }
  return list;
}

std::string did_you_mean(std::string_view word, const Words& candidates) {
  std::string_view nearest;
  std::size_t distance = most_edits + 1;
  for (const std::string_view candidate : candidates) {
    if (word.size() > candidate.size() + most_edits) continue;
    const std::size_t found = edits(word, candidate);
    if (found < distance && resembles(word, candidate, found)) {
      nearest = candidate;
      distance = found;
    }
  }
  return nearest.empty() ? "" : "; did you mean " + in_quotes(nearest) + "?";
}

}  // namespace cistern::language
