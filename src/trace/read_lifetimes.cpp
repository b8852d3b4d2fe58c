// Reads a table of lifetimes: CSV as minimalloc, a planner of Google's, writes and reads it.
#include "trace/read_lifetimes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "trace/fail.hpp"
#include "trace/lines.hpp"

namespace cistern::detail {
namespace {

using Status = tl::expected<void, TraceError>;

enum Column : std::size_t { id, lower, upper, size, alignment, offset, hint };

// The order is that of Column.
constexpr std::array<std::string_view, 7> table_columns{"id",        "lower",  "upper", "size",
                                                        "alignment", "offset", "hint"};
constexpr std::size_t needed_columns = 4;

constexpr std::string_view known_columns =
    "id, lower, upper and size are needed, alignment may be there, offset and hint are skipped";

class LifetimesReader {
 public:
  explicit LifetimesReader(std::string_view csv) : lines_(csv) {}

  tl::expected<Lifetimes, TraceError> read() {
    lines_.next();
    Status status = read_header();
    while (status && lines_.next()) {
      if (!trim(lines_.line()).empty()) status = read_row();
    }
    if (status) status = check_ids();
    if (!status) return tl::unexpected(std::move(status).error());
    lifetimes_.source = "lifetimes-csv";
    return std::move(lifetimes_);
  }

 private:
  /// Finds where each column stands.
  Status read_header() {
    std::array<std::string_view, table_columns.size()> names;
    width_ = split_fields(lines_.line(), names);
    for (std::size_t place = 0; place < std::min(width_, names.size()); ++place) {
      if (auto status = place_column(names[place], place); !status) return status;
    }
    // Those that fit are all different and known, so that one more can only be wrong.
    if (width_ > names.size())
      return failure(fmt::format("has {} columns; {}", width_, known_columns));
    for (std::size_t column = 0; column < needed_columns; ++column) {
      if (!places_[column])
        return failure(
            fmt::format("lacks the column {}; {}", table_columns[column], known_columns));
    }
    return {};
  }

  Status place_column(std::string_view name, std::size_t place) {
    if (name == "gaps") {
      return failure(
          "has the column gaps, times within a life when memory is not needed, for which cistern "
          "does not plan; without the column a buffer keeps its memory throughout");
    }
    if (name == "end") {
      return failure(
          "has the column end, the last time of use; upper, the time after it, is expected");
    }
    const auto* const found = std::find(table_columns.begin(), table_columns.end(), name);
    if (found == table_columns.end())
      return failure(fmt::format("has the column {}; {}", in_quotes(name), known_columns));
    auto& where = places_[static_cast<std::size_t>(found - table_columns.begin())];
    if (where) return failure(fmt::format("has the column {} twice", name));
    where = place;
    return {};
  }

  Status read_row() {
    std::array<std::string_view, table_columns.size()> fields;
    if (const std::size_t found = split_fields(lines_.line(), fields); found != width_)
      return failure(fmt::format("has {} fields; there should be {}", found, width_));
    const auto field = [&](Column column) { return fields[*places_[column]]; };

    std::array<std::uint64_t, needed_columns> numbers{};
    for (const Column column : {lower, upper, size}) {
      const auto number = parse_number(field(column));
      if (!number) return bad_field(column, field(column), "a number below 2^64");
      numbers[column] = *number;
    }
    if (numbers[upper] < numbers[lower]) {
      return failure(fmt::format("lives from {} to {}; upper must be at least lower",
                                 numbers[lower], numbers[upper]));
    }
    Lifetime buffer{
        .lower = numbers[lower], .upper = numbers[upper], .bytes = std::size_t{numbers[size]}};
    if (places_[alignment]) {
      const auto number = parse_number(field(alignment));
      if (!number || !std::has_single_bit(*number))
        return bad_field(alignment, field(alignment), "a power of two below 2^64");
      buffer.alignment = std::size_t{*number};
    }
    lifetimes_.ids.emplace_back(field(id));
    lifetimes_.buffers.push_back(buffer);
    rows_.push_back(lines_.number());
    return {};
  }

  /// By sorting: no choice of ids makes it slow.
  [[nodiscard]] Status check_ids() const {
    std::vector<std::size_t> order(rows_.size());
    for (std::size_t row = 0; row < order.size(); ++row)
      order[row] = row;
    const auto& ids = lifetimes_.ids;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t left, std::size_t right) { return ids[left] < ids[right]; });
    const auto same = std::adjacent_find(
        order.begin(), order.end(),
        [&](std::size_t left, std::size_t right) { return ids[left] == ids[right]; });
    if (same == order.end()) return {};
    return fail_at_line(rows_[same[1]], fmt::format("has the id {} of line {}; an id names one "
                                                    "buffer",
                                                    detail::in_quotes(ids[*same]), rows_[*same]));
  }

  [[nodiscard]] Failure bad_field(Column column, std::string_view found,
                                  std::string_view expected) const {
    return failure(fmt::format("has {} as its {}; {} is expected", in_quotes(found),
                               table_columns[column], expected));
  }

  [[nodiscard]] Failure failure(std::string message) const {
    return fail_at_line(lines_.number(), std::move(message));
  }

  Lines lines_;
  std::size_t width_ = 0;  // how many fields each line has
  std::array<std::optional<std::size_t>, table_columns.size()> places_;
  Lifetimes lifetimes_;
  std::vector<std::uint64_t> rows_;  // the line of each buffer
};

}  // namespace

bool looks_like_lifetimes(std::string_view bytes) {
  constexpr std::size_t longest_header = 1024;
  std::array<std::string_view, 16> names;
  Lines lines(bytes.substr(0, longest_header));
  if (!lines.next()) return false;
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(
                                       std::min(split_fields(lines.line(), names), names.size()));
  return std::any_of(names.begin(), end, [](std::string_view name) {
    return name == table_columns[lower] || name == table_columns[upper];
  });
}

tl::expected<Lifetimes, TraceError> read_lifetimes(std::string_view csv) {
  return LifetimesReader(csv).read();
}

}  // namespace cistern::detail
