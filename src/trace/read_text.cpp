// Reads the text form that write.cpp writes and people edit.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "trace/fail.hpp"
#include "trace/lines.hpp"
#include "trace/readers.hpp"
#include "trace/text_words.hpp"

namespace cistern::detail {
namespace {

using Status = tl::expected<void, TraceError>;

/// Takes the next word off `line`; empty when there is none.
std::string_view take_word(std::string_view& line) {
  constexpr std::string_view blanks = " \t";
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(blanks));
  line.remove_prefix(word.size());
  return word;
}

class TextReader {
 public:
  explicit TextReader(std::string_view text) : lines_(text) {}

  ReadResult read() {
    lines_.next();
    if (lines_.line() != text_signature) {
      return failure(fmt::format("is {}; {} is expected", in_quotes(lines_.line()),
                                 in_quotes(text_signature)));
    }
    while (lines_.next()) {
      if (auto status = read_line(lines_.line()); !status)
        return tl::unexpected(std::move(status).error());
    }
    if (!ended_) {
      return failure(fmt::format("is the last, but the last must be {}: the file was cut short",
                                 in_quotes(end_word)));
    }
    trace_.source = "cistern";
    return if_lawful(std::move(trace_)).map_error([this](TraceError error) {
      return at_line(std::move(error));
    });
  }

 private:
  Status read_line(std::string_view line) {
    const std::string_view word = take_word(line);
    if (word.empty() || word.starts_with('#')) return {};
    if (ended_)
      return failure(
          fmt::format("follows the line {}, which must be the last", in_quotes(end_word)));
    if (word == end_word) {
      ended_ = true;
      return read_numbers<0>(line, end_word).map([](const auto& /*none*/) {});
    }
    if (word == initial_word) return read_initial_block(line);
    const auto operation = std::find(operation_words.begin(), operation_words.end(), word);
    if (operation == operation_words.end()) {
      return failure(fmt::format("begins with {}; initial, {} or end is expected", in_quotes(word),
                                 fmt::join(operation_words, ", ")));
    }
    return read_event(static_cast<Operation>(operation - operation_words.begin() + 1), line);
  }

  Status read_initial_block(std::string_view line) {
    if (!trace_.events.empty())
      return failure("states an initial block; those come before the first event");
    const auto numbers = read_numbers<4>(line, initial_columns);
    if (!numbers) return tl::unexpected(numbers.error());
    const auto& [id, bytes, alignment, stream] = *numbers;
    trace_.initial_blocks.push_back({id, bytes, alignment, stream});
    initial_block_lines_.push_back(lines_.number());
    return {};
  }

  Status read_event(Operation operation, std::string_view line) {
    const auto numbers = read_numbers<7>(line, event_columns);
    if (!numbers) return tl::unexpected(numbers.error());
    const auto& [sequence, time_ns, thread, id, bytes, alignment, stream] = *numbers;
    if (thread > std::numeric_limits<std::uint32_t>::max()) {
      return failure(fmt::format("states thread {}, but a thread has at most 32 bits", thread));
    }
    trace_.events.push_back({sequence, time_ns, id, bytes, alignment, stream,
                             static_cast<std::uint32_t>(thread), operation});
    event_lines_.push_back(lines_.number());
    return {};
  }

  /// Reads all that is left of a line as `Count` numbers.
  template <std::size_t Count>
  tl::expected<std::array<std::uint64_t, Count>, TraceError> read_numbers(
      std::string_view line, std::string_view columns) {
    std::array<std::uint64_t, Count> numbers{};
    for (std::uint64_t& number : numbers) {
      const std::string_view word = take_word(line);
      const auto parsed = parse_number(word);
      if (!parsed) {
        return failure(
            fmt::format("has {} where a number below 2^64 is expected; the columns are: {}",
                        in_quotes(word), columns));
      }
      number = *parsed;
    }
    if (const std::string_view surplus = take_word(line); !surplus.empty()) {
      return failure(fmt::format("goes on with {} after its last column; the columns are: {}",
                                 in_quotes(surplus), columns));
    }
    return numbers;
  }

  [[nodiscard]] Failure failure(std::string message) const {
    return fail_at_line(std::max<std::uint64_t>(lines_.number(), 1), std::move(message));
  }

  /// Events have no names in an editor; lines do.
  [[nodiscard]] TraceError at_line(TraceError error) const {
    const auto& lines = error.unit == TraceError::Unit::event ? event_lines_ : initial_block_lines_;
    error.position = lines[static_cast<std::size_t>(error.position)];
    error.unit = TraceError::Unit::line;
    return error;
  }

  Lines lines_;
  Trace trace_;
  std::vector<std::uint64_t> initial_block_lines_;
  std::vector<std::uint64_t> event_lines_;
  bool ended_ = false;
};

}  // namespace

ReadResult read_text(std::string_view text, const ReadOptions& /*options*/) {
  return TextReader(text).read();
}

}  // namespace cistern::detail
