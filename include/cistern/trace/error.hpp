// The one error of everything that reads, checks or writes traces. It names the place, so that a
// person can look at it, and says what was wrong there and what would have been right.
#pragma once

#include <cstdint>
#include <string>

namespace cistern {

struct TraceError {
  enum class Unit : std::uint8_t {
    file,           // the file as a whole; `position` means nothing
    byte,           // counted from 0, after decompression
    line,           // counted from 1
    event,          // an index into Trace::events
    initial_block,  // an index into Trace::initial_blocks
  };

  std::string file;
  Unit unit = Unit::file;
  std::uint64_t position = 0;
  std::string message;

  /// "run.csv: line 3: ...", without a line end.
  [[nodiscard]] std::string text() const;
};

}  // namespace cistern
