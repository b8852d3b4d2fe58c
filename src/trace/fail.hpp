// Makes errors in one line. Readers leave `file` empty: it is filled in where the name is known.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"

namespace cistern::detail {

using Failure = tl::unexpected<TraceError>;

Failure fail(std::string message);
Failure fail_at_byte(std::uint64_t position, std::string message);
Failure fail_at_line(std::uint64_t position, std::string message);

/// A short, printable rendering of what a file holds, between quotes: long texts are cut, odd bytes
/// become \xNN.
std::string in_quotes(std::string_view text);

/// The first few of `names`, and how many more there are: what a file holds may be long.
std::string first_of(const std::vector<std::string>& names);

}  // namespace cistern::detail
