#include "table.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace cistern::command {

namespace {

/// The end of the word that starts at `start`.
std::size_t word_end(const std::string& text, std::size_t start) {
  std::size_t end = text.find(' ', start);
  while (end != std::string::npos && text.compare(end, 2, " >") == 0)
    end = text.find(' ', end + 1);
  return std::min(end, text.size());
}

}  // namespace

std::vector<std::string> wrapped(const std::string& text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = word_end(text, start);
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
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::size_t others = 0;
  for (std::size_t i = 1; i < widths.size(); ++i)
    others += gap + widths[i];
  const std::size_t room = width - std::min(width, others);
  widths[0] = 0;
  for (const auto& row : rows_) {
    if (row[0].size() <= room) widths[0] = std::max(widths[0], row[0].size());
  }

  std::string out;
  for (const auto& row : rows_) {
    const bool fits = row[0].size() <= widths[0];
    if (!fits) {
      for (const std::string& line : wrapped(row[0], width))
        out += line + '\n';
    }
    fmt::format_to(std::back_inserter(out), "{:<{}}", fits ? row[0] : "", widths[0]);
    for (std::size_t i = 1; i < row.size(); ++i) {
      fmt::format_to(std::back_inserter(out), "{:>{}}", row[i], gap + widths[i]);
    }
    out += '\n';
  }
  return out;
}

}  // namespace cistern::command
