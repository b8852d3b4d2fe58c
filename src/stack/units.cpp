#include "cistern/stack/units.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <span>
#include <system_error>
#include <utility>

namespace cistern {
namespace {

using Quantity = tl::expected<std::uint64_t, QuantityError>;

struct Unit {
  std::string_view name;
  std::uint64_t scale;
};

constexpr std::array size_units = {
    Unit{"", 1},
    Unit{"B", 1},
    Unit{"KiB", std::uint64_t{1} << 10U},
    Unit{"MiB", std::uint64_t{1} << 20U},
    Unit{"GiB", std::uint64_t{1} << 30U},
    Unit{"TiB", std::uint64_t{1} << 40U},
    Unit{"PiB", std::uint64_t{1} << 50U},
    Unit{"EiB", std::uint64_t{1} << 60U},
    Unit{"kB", 1'000},
    Unit{"MB", 1'000'000},
    Unit{"GB", 1'000'000'000},
    Unit{"TB", 1'000'000'000'000},
    Unit{"PB", 1'000'000'000'000'000},
    Unit{"EB", 1'000'000'000'000'000'000},
};

constexpr std::array duration_units = {
    Unit{"ns", 1},
    Unit{"us", 1'000},
    Unit{"ms", 1'000'000},
    Unit{"s", 1'000'000'000},
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

/// Takes the digits that `text` begins with away from it.
std::string_view take_digits(std::string_view& text) {
  const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
  const std::string_view digits = text.substr(0, static_cast<std::size_t>(end - text.begin()));
  text.remove_prefix(digits.size());
  return digits;
}

constexpr std::size_t most_fraction_digits = 9;

/// `0.digits * scale`, rounded down. A scale is at most 2^60 and there are at most nine digits, so
/// that neither of the two products reaches 2^64.
std::uint64_t fraction_of(std::string_view digits, std::uint64_t scale) {
  std::uint64_t numerator = 0;
  std::uint64_t denominator = 1;
  for (const char digit : digits) {
    numerator = numerator * 10 + static_cast<std::uint64_t>(digit - '0');
    denominator *= 10;
  }
  return numerator * (scale / denominator) + numerator * (scale % denominator) / denominator;
}

Quantity parse(std::string_view text, std::span<const Unit> units) {
  const tl::unexpected malformed(QuantityError::malformed);
  const tl::unexpected too_large(QuantityError::too_large);

  const std::string_view whole_digits = take_digits(text);
  if (whole_digits.empty()) return malformed;
  std::string_view fraction_digits;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction_digits = take_digits(text);
    if (fraction_digits.empty() || fraction_digits.size() > most_fraction_digits) return malformed;
  }
  const auto unit = std::find_if(units.begin(), units.end(),
                                 [&](const Unit& each) { return same_name(each.name, text); });
  if (unit == units.end()) return malformed;
  if (unit->scale == 1 && !fraction_digits.empty()) return malformed;

  std::uint64_t whole = 0;
  const char* const end = whole_digits.data() + whole_digits.size();
  if (std::from_chars(whole_digits.data(), end, whole).ec != std::errc{}) return too_large;
  constexpr std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();
  if (whole > largest / unit->scale) return too_large;
  const std::uint64_t fraction = fraction_of(fraction_digits, unit->scale);
  if (fraction > largest - whole * unit->scale) return too_large;
  return whole * unit->scale + fraction;
}

std::string format(std::uint64_t value, std::span<const Unit> units) {
  Unit best = units.front();
  for (const Unit& unit : units) {
    if (value % unit.scale == 0 && unit.scale > best.scale && value != 0) best = unit;
  }
  return std::to_string(value / best.scale).append(best.name);
}

}  // namespace

tl::expected<std::size_t, QuantityError> parse_size(std::string_view text) {
  const Quantity bytes = parse(text, size_units);
  if (!bytes) return tl::unexpected(bytes.error());
  if (!std::in_range<std::size_t>(*bytes)) return tl::unexpected(QuantityError::too_large);
  return static_cast<std::size_t>(*bytes);
}

std::string format_size(std::size_t bytes) {
  return format(bytes, size_units);
}

tl::expected<std::chrono::nanoseconds, QuantityError> parse_duration(std::string_view text) {
  if (text == "0") return std::chrono::nanoseconds(0);
  const Quantity count = parse(text, duration_units);
  if (!count) return tl::unexpected(count.error());
  using Count = std::chrono::nanoseconds::rep;
  if (!std::in_range<Count>(*count)) return tl::unexpected(QuantityError::too_large);
  return std::chrono::nanoseconds(static_cast<Count>(*count));
}

std::string format_duration(std::chrono::nanoseconds duration) {
  if (duration.count() == 0) return "0";
  return format(static_cast<std::uint64_t>(duration.count()), duration_units);
}

}  // namespace cistern
