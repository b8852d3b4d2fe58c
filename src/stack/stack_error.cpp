#include <algorithm>
#include <string>

#include "cistern/stack/stack.hpp"
#include "stack/wording.hpp"

namespace cistern {
namespace {

// Of a long text only the surroundings of the place are shown.
constexpr std::size_t shown_width = 100;
constexpr std::size_t shown_before = 40;
constexpr const char* indent = "  ";
constexpr const char* cut = "...";

std::string render(std::string_view text, std::size_t position, std::size_t length,
                   const std::string& message) {
  std::size_t start = 0;
  std::size_t end = text.size();
  if (text.size() > shown_width) {
    start = std::min(position - std::min(position, shown_before), text.size() - shown_width);
    end = start + shown_width;
  }
  std::string line = indent;
  std::string under = indent;
  if (start > 0) {
    line += cut;
    under += "   ";
  }
  line += language::visible(text.substr(start, end - start));
  if (end < text.size()) line += cut;
  under.append(position - start, ' ');
  under += '^';
  const std::size_t underlined = std::min(position + length, end);
  if (underlined > position) under.append(underlined - position - 1, '~');
  return message + "\n" + line + "\n" + under;
}

}  // namespace

StackError::StackError(std::string_view text, std::size_t position, std::size_t length,
                       const std::string& message)
    : std::invalid_argument(render(text, std::min(position, text.size()),
                                   std::min(length, text.size() - std::min(position, text.size())),
                                   message)),
      position_(std::min(position, text.size())),
      length_(std::min(length, text.size() - position_)),
      message_(message) {}

}  // namespace cistern
