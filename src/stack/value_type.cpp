#include "stack/value_type.hpp"

#include <bit>
#include <cmath>
#include <cstdio>
#include <optional>

#include "cistern/core/size.hpp"
#include "cistern/stack/units.hpp"

namespace cistern::language {
namespace {

constexpr const char* size_examples = "4096, 64KiB, 1.5GiB or 80GB";

/// How a value stands in a message: as it was written, where that is short.
std::string shown(const Value& value) {
  switch (value.form) {
    case Value::Form::word:
      return in_quotes(value.text);
    case Value::Form::text:
      return "text in quotes";
    case Value::Form::list:
      return "a list";
    case Value::Form::stack:
      return "a stack";
  }
  return {};
}

/// The number that all of `text` is: decimal, perhaps with an exponent, not negative, finite.
std::optional<double> plain_number(std::string_view text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stop != end) return std::nullopt;
  if (!std::isfinite(number) || std::signbit(number)) return std::nullopt;
  return number;
}

/// 15% as 0.15.
std::optional<double> percentage(std::string_view text) {
  if (!text.ends_with('%')) return std::nullopt;
  const std::optional<double> percent = plain_number(text.substr(0, text.size() - 1));
  if (!percent) return std::nullopt;
  return *percent / 100;
}

std::string short_number(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", number);
  return text;
}

Result<std::size_t> read_size(const Value& value, std::string_view type,
                              const std::string& examples) {
  if (value.form != Value::Form::word) return not_a(value, type, examples);
  const auto bytes = parse_size(value.text);
  if (bytes) return *bytes;
  if (bytes.error() == QuantityError::too_large) {
    return out_of_range(value, "at most " + std::to_string(unbounded));
  }
  return not_a(value, type, examples);
}

/// While a text is only checked there is no device, and any size will do.
Result<std::size_t> part_of_memory(const Value& value, double ratio, const Resource* below) {
  if (ratio > 1) return out_of_range(value, "from 0% to 100% of the device's memory");
  if (below == nullptr) return 0;
  const DeviceLimits& limits = below->device().limits();
  if (limits.total_memory == 0) {
    return problem(value.span, std::string("the ") + limits.kind +
                                   " device does not say how much memory it has; write a size");
  }
  return scale(limits.total_memory, ratio);
}

}  // namespace

Type<std::size_t> size() {
  return {.name = "size",
          .bounds = "",
          .read = [](const Value& value,
                     const Context&) { return read_size(value, "size", size_examples); },
          .write = format_size};
}

Type<std::size_t> size_or_percent() {
  return {.name = "size or percent",
          .bounds = "",
          .read = [](const Value& value, const Context& context) -> Result<std::size_t> {
            if (value.form == Value::Form::word) {
              const std::optional<double> ratio = percentage(value.text);
              if (ratio) return part_of_memory(value, *ratio, context.below);
            }
            return read_size(value, "size or percentage", "4096, 64KiB, 1.5GiB, 80GB or 90%");
          },
          .write = format_size};
}

Type<std::chrono::nanoseconds> duration() {
  return {.name = "duration",
          .bounds = "",
          .read = [](const Value& value, const Context&) -> Result<std::chrono::nanoseconds> {
            constexpr const char* examples = "5ns, 10us, 250ms, 1.5s or 0";
            if (value.form != Value::Form::word) return not_a(value, "duration", examples);
            const auto parsed = parse_duration(value.text);
            if (parsed) return *parsed;
            if (parsed.error() == QuantityError::too_large) {
              return out_of_range(value,
                                  "at most " + format_duration(std::chrono::nanoseconds::max()));
            }
            return not_a(value, "duration", examples);
          },
          .write = format_duration};
}

Type<double> real() {
  return {.name = "number",
          .bounds = "",
          .read = [](const Value& value, const Context&) -> Result<double> {
            std::optional<double> number;
            if (value.form == Value::Form::word) number = plain_number(value.text);
            if (!number) return not_a(value, "number of 0 or more", "0, 2 or 1.5");
            return *number;
          },
          .write = short_number};
}

Type<double> ratio() {
  return {.name = "ratio",
          .bounds = "",
          .read = [](const Value& value, const Context&) -> Result<double> {
            std::optional<double> number;
            if (value.form == Value::Form::word) {
              number = percentage(value.text);
              if (!number) number = plain_number(value.text);
            }
            if (!number) return not_a(value, "ratio of 0 or more", "15% or 0.15");
            return *number;
          },
          .write = [](const double& ratio) { return short_number(ratio * 100) + "%"; }};
}

Type<std::string> text() {
  return {.name = "text",
          .bounds = "",
          .read = [](const Value& value, const Context&) -> Result<std::string> {
            const bool readable =
                value.form == Value::Form::word || value.form == Value::Form::text;
            if (!readable) return not_a(value, "text", "a word, or anything in double quotes");
            if (value.text.empty()) return problem(value.span, "this must not be empty");
            return value.text;
          },
          .write = [](const std::string& text) { return "\"" + text + "\""; }};
}

Type<bool> boolean() {
  return one_of<bool>({{"true", true}, {"false", false}});
}

Bound<std::size_t> at_least(std::size_t least) {
  return {"at least " + format_size(least),
          [least](const std::size_t& value) { return value >= least; }};
}

Bound<double> at_least(double least) {
  return {"at least " + short_number(least),
          [least](const double& value) { return value >= least; }};
}

Bound<std::size_t> at_most(std::size_t most) {
  return {"at most " + format_size(most),
          [most](const std::size_t& value) { return value <= most; }};
}

Bound<std::size_t> power_of_two(std::size_t least, std::size_t most) {
  return {"a power of two from " + format_size(least) + " to " + format_size(most),
          [least, most](const std::size_t& bytes) {
            return std::has_single_bit(bytes) && bytes >= least && bytes <= most;
          }};
}

Bound<double> probability() {
  return {"from 0% to 100%", [](const double& value) { return value <= 1; }};
}

tl::unexpected<Problem> not_a(const Value& value, std::string_view type,
                              std::string_view examples) {
  return problem(value.span, shown(value) + " is not a " + std::string(type) + "; write " +
                                 std::string(examples));
}

tl::unexpected<Problem> out_of_range(const Value& value, std::string_view bounds) {
  return problem(value.span, shown(value) + " is out of range; it must be " + std::string(bounds));
}

tl::unexpected<Problem> not_one_of(const Value& value, const Words& words,
                                   const std::string& otherwise) {
  const std::string meant = value.form == Value::Form::word ? did_you_mean(value.text, words) : "";
  return problem(value.span, shown(value) + " is not one of " + listed(words) + otherwise + meant);
}

}  // namespace cistern::language
