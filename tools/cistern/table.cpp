#include "table.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace cistern::command {

std::vector<std::string> wrapped(const std::string& text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find(' ', start), text.size());
    const std::string word = text.substr(start, end - start);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      lines.push_back(std::move(line));
      line = "  ";  // what is wrapped is indented
    } else if (!line.empty()) {
      line += ' ';
    }
    line += word;
    start = end + 1;
  }
  lines.push_back(std::move(line));
  return lines;
}

std::string Table::text(std::size_t width) const {
  constexpr std::size_t gap = 2;
  constexpr std::size_t narrowest = 16;
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::size_t others = 0;
  for (std::size_t i = 1; i < widths.size(); ++i)
    others += gap + widths[i];
  const std::size_t room = width > others + narrowest ? width - others : narrowest;
  widths[0] = 0;
  for (const auto& row : rows_) {
    for (const std::string& line : wrapped(row[0], room))
      widths[0] = std::max(widths[0], line.size());
  }

  std::string out;
  for (const auto& row : rows_) {
    const std::vector<std::string> first = wrapped(row[0], room);
    fmt::format_to(std::back_inserter(out), "{:<{}}", first.front(), widths[0]);
    for (std::size_t i = 1; i < row.size(); ++i) {
      fmt::format_to(std::back_inserter(out), "{:>{}}", row[i], gap + widths[i]);
    }
    out += '\n';
    for (std::size_t i = 1; i < first.size(); ++i)
      out += first[i] + '\n';
  }
  return out;
}

}  // namespace cistern::command
