// A table of text that fits the terminal: columns as wide as their longest cell. A cell of the
// first column that is too long for that stands on lines of its own, above its row.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace cistern::command {

class Table {
 public:
  /// The first column stands to the left, the others, figures, to the right.
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

  /// As many cells as the header has.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  /// The lines; at most `width` columns if the figures leave room for the first column.
  [[nodiscard]] std::string text(std::size_t width) const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the first is the header
};

/// `text` in lines of at most `width`, broken at spaces, but not before the '>' of a stack; a
/// longer word keeps its length.
std::vector<std::string> wrapped(const std::string& text, std::size_t width);

}  // namespace cistern::command
