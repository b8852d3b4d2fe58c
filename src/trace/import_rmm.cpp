// Imports the CSV log of RMM's logging adaptor. That adaptor logs an allocation after it was made
// and a free before it is made, so the order of the lines is a possible order of events even when
// threads race: a pointer that is allocated while it is live is a contradiction.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "trace/fail.hpp"
#include "trace/lines.hpp"
#include "trace/readers.hpp"
#include "trace/trace_builder.hpp"

namespace cistern::detail {
namespace {

using Status = tl::expected<void, TraceError>;

constexpr std::uint64_t ns_per_second = 1'000'000'000;
constexpr std::uint64_t ns_per_hour = 60 * 60 * ns_per_second;
constexpr std::uint64_t ns_per_day = 24 * ns_per_hour;

std::optional<std::uint64_t> parse_hexadecimal(std::string_view text) {
  if (text == "(nil)") return 0;
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  return parse_number(text, 16);
}

/// HH:MM:SS.ffffff in nanoseconds since midnight; older versions write a colon before the fraction.
std::optional<std::uint64_t> parse_time_of_day(std::string_view text) {
  constexpr std::string_view pattern = "dd:dd:dd.";
  if (text.size() <= pattern.size() || text.size() > pattern.size() + 9) return std::nullopt;
  for (std::size_t index = 0; index < pattern.size(); ++index) {
    const bool alike = pattern[index] == 'd'   ? text[index] >= '0' && text[index] <= '9'
                       : pattern[index] == '.' ? text[index] == '.' || text[index] == ':'
                                               : text[index] == pattern[index];
    if (!alike) return std::nullopt;
  }
  const auto two_digits = [text](std::size_t at) {
    return static_cast<std::uint64_t>((text[at] - '0') * 10 + (text[at + 1] - '0'));
  };
  const std::uint64_t hours = two_digits(0);
  const std::uint64_t minutes = two_digits(3);
  const std::uint64_t seconds = two_digits(6);
  const std::string_view digits = text.substr(pattern.size());
  auto fraction = parse_number(digits);
  if (!fraction || hours > 23 || minutes > 59 || seconds > 60)
    return std::nullopt;  // 60 is a leap second
  for (std::size_t index = digits.size(); index < 9; ++index)
    *fraction *= 10;
  return ((hours * 60 + minutes) * 60 + seconds) * ns_per_second + *fraction;
}

/// Makes a time that never falls out of times of day. A fall by more than half a day is a midnight.
/// A smaller one, or a rise by nearly a day just after a midnight, is threads that took their times
/// in another order than their lines.
class RisingClock {
 public:
  std::uint64_t operator()(std::uint64_t time_of_day) {
    if (days_ > 0 && time_of_day > last_ && time_of_day - last_ > ns_per_day - ns_per_hour)
      return highest_;
    if (time_of_day < last_ && last_ - time_of_day > ns_per_day / 2) days_ += ns_per_day;
    last_ = time_of_day;
    highest_ = std::max(highest_, days_ + time_of_day);
    return highest_;
  }

 private:
  std::uint64_t days_ = 0;
  std::uint64_t last_ = 0;
  std::uint64_t highest_ = 0;
};

class RmmImporter {
 public:
  explicit RmmImporter(std::string_view csv) : lines_(csv) {}

  ReadResult import() {
    lines_.next();
    if (trim(lines_.line()) != rmm_header) {
      return failure(
          fmt::format("is {}; {} is expected", in_quotes(lines_.line()), in_quotes(rmm_header)));
    }
    while (lines_.next()) {
      if (auto status = import_line(lines_.line()); !status)
        return tl::unexpected(std::move(status).error());
    }
    return if_lawful(builder_.finish("rmm-csv"));
  }

 private:
  Status import_line(std::string_view line) {
    if (trim(line).empty()) return {};
    std::array<std::string_view, 6> fields;
    const std::size_t count = split_fields(line, fields);
    if (count != fields.size()) {
      return failure(
          fmt::format("has {} fields; there should be {}: {}", count, fields.size(), rmm_header));
    }
    const auto thread = parse_number(fields[0]);
    if (!thread) return bad_field("thread", fields[0], "a decimal number");
    const auto time_of_day = parse_time_of_day(fields[1]);
    if (!time_of_day) return bad_field("time", fields[1], "HH:MM:SS.uuuuuu");
    const std::string_view action = fields[2];
    const auto pointer = parse_hexadecimal(fields[3]);
    if (!pointer) return bad_field("pointer", fields[3], "a hexadecimal number or (nil)");
    const auto bytes = parse_number(fields[4]);
    if (!bytes) return bad_field("size", fields[4], "a decimal number");
    const auto stream = parse_hexadecimal(fields[5]);
    if (!stream) return bad_field("stream", fields[5], "a hexadecimal number or (nil)");

    const TraceBuilder::Context context{lines_.number(), clock_(*time_of_day), *stream, *thread};
    if (action == "allocate failure") return {};
    if (action != "allocate" && action != "free") {
      return bad_field("action", action, "allocate, allocate failure or free");
    }
    if (*pointer == 0) return {};  // nothing was asked for, nothing is held
    return action == "allocate" ? allocate(*pointer, *bytes, context)
                                : free(*pointer, *bytes, context);
  }

  Status allocate(std::uint64_t pointer, std::uint64_t bytes,
                  const TraceBuilder::Context& context) {
    if (const auto* block = builder_.at(pointer); block != nullptr && block->live) {
      return failure(fmt::format("allocates pointer {:#x}, which is live since line {}", pointer,
                                 block->origin));
    }
    builder_.allocate(pointer, bytes, context);
    return {};
  }

  Status free(std::uint64_t pointer, std::uint64_t bytes, const TraceBuilder::Context& context) {
    const auto* block = builder_.at(pointer);
    if (block == nullptr) {
      builder_.begin_with(pointer, bytes, context);
    } else if (!block->live) {
      return failure(fmt::format(
          "frees pointer {:#x}, which was freed before and not allocated since", pointer));
    } else if (block->bytes != bytes) {
      return failure(fmt::format("frees {} bytes at pointer {:#x}, where line {} allocates {}",
                                 bytes, pointer, block->origin, block->bytes));
    }
    builder_.free(pointer, context);
    return {};
  }

  [[nodiscard]] Failure bad_field(std::string_view field, std::string_view found,
                                  std::string_view expected) const {
    return failure(
        fmt::format("has {} as its {}; {} is expected", in_quotes(found), field, expected));
  }

  [[nodiscard]] Failure failure(std::string message) const {
    return fail_at_line(lines_.number(), std::move(message));
  }

  Lines lines_;
  RisingClock clock_;
  TraceBuilder builder_;
};

}  // namespace

ReadResult import_rmm(std::string_view csv, const ReadOptions& /*options*/) {
  return RmmImporter(csv).import();
}

}  // namespace cistern::detail
