#include "svg_text.hpp"

#include <cstddef>

#include "output.hpp"

namespace cistern::command {

std::string escaped(std::string_view text) {
  const std::string quoted_utf8 =
      Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string result;
  for (const char character : Json::parse(quoted_utf8).get<std::string>()) {
    switch (character) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      default:
        result += static_cast<unsigned char>(character) < ' ' ? ' ' : character;
    }
  }
  // The two code points that are characters of UTF-8 and not of XML.
  for (const std::string_view none : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    for (std::size_t at = 0; (at = result.find(none, at)) != std::string::npos;)
      result.replace(at, none.size(), " ");
  }
  return result;
}

}  // namespace cistern::command
