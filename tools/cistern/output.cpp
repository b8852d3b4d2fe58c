#include "output.hpp"

#include <array>
#include <cstddef>
#include <cstdio>

#include <fmt/format.h>

namespace cistern::command {

void print_json(const Json& document) {
  fmt::print("{}\n", document.dump(2, ' ', false, Json::error_handler_t::replace));
}

std::string with_commas(std::uint64_t number) {
  std::string text = fmt::format("{}", number);
  for (std::size_t place = text.size(); place > 3;) {
    place -= 3;
    text.insert(place, ",");
  }
  return text;
}

std::string counted(std::uint64_t number, const char* noun) {
  return fmt::format("{} {}{}", with_commas(number), noun, number == 1 ? "" : "s");
}

std::string in_units(std::uint64_t bytes) {
  constexpr std::array units{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double amount = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // From 1023.95 on it would be written as 1024.0.
  for (; amount >= 1023.95 && unit + 1 < units.size(); ++unit)
    amount /= 1024;
  return fmt::format("{:.{}f} {}", amount, amount < 99.995 ? 2 : 1, units[unit]);
}

std::string as_time(double ns) {
  constexpr std::array units{"ns", "us", "ms", "s"};
  if (ns == 0) return "0 ns";
  std::size_t unit = 0;
  for (; ns >= 999.5 && unit + 1 < units.size(); ++unit)
    ns /= 1000;
  return fmt::format("{:.{}f} {}", ns, ns < 9.95 || (unit > 0 && ns < 99.95) ? 1 : 0, units[unit]);
}

std::string as_percent(double part) {
  return fmt::format("{:.1f}%", 100 * part);
}

}  // namespace cistern::command
