// Makes errors in one line. Readers leave `file` empty: it is filled in where the name is known.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"

namespace cistern::detail {

using Failure = tl::unexpected<TraceError>;

Failure fail(std::string message);
Failure fail_at_byte(std::uint64_t position, std::string message);
Failure fail_at_line(std::uint64_t position, std::string message);

/// A short, printable rendering of what a file holds, between quotes: long texts are cut, odd bytes
/// become \xNN.
std::string quoted(std::string_view text);

}  // namespace cistern::detail
