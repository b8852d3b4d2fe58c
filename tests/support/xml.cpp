#include "support/xml.hpp"

#include <string_view>
#include <vector>

namespace cistern::testing {

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size())
    ++found;
  return found;
}

std::string broken_xml(const std::string& text) {
  std::vector<std::string> open;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char character = text[at];
    if (static_cast<unsigned char>(character) < ' ' && character != '\n') return "a control byte";
    if (character == '>') return "a stray >";
    if (character == '&') {
      const std::string_view rest = std::string_view(text).substr(at);
      if (!rest.starts_with("&amp;") && !rest.starts_with("&lt;") && !rest.starts_with("&gt;"))
        return "a stray &";
    }
    if (character != '<') continue;
    const std::size_t end = text.find('>', at);
    if (end == std::string::npos) return "an open tag";
    const std::string tag = text.substr(at + 1, end - at - 1);
    at = end;
    if (tag.find('<') != std::string::npos) return "a tag within " + tag;
    if (count(tag, "\"") % 2 != 0) return "an open quote in " + tag;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return "a wrong end " + tag;
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
  }
  return open.empty() ? "" : open.back() + " has no end";
}

}  // namespace cistern::testing
