// The units that sizes and durations are written in, everywhere: in a stack's text, on the command
// line, in what the library prints. Arithmetic is in whole numbers, so that nothing is lost on the
// way.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace cistern {

enum class QuantityError : std::uint8_t { malformed, too_large };

/// Bytes of "4096", "64KiB", "1.5GiB", "80GB": B, KiB to EiB in steps of 1024 and kB to EB in steps
/// of 1000, in capitals or not. Up to nine digits may follow the point; what is less than a byte is
/// dropped.
[[nodiscard]] tl::expected<std::size_t, QuantityError> parse_size(std::string_view text);

/// The shortest way to write `bytes` that says exactly as many: "64KiB", "1536MiB", "80GB", "4097".
[[nodiscard]] std::string format_size(std::size_t bytes);

/// "5ns", "1.5us", "250ms" or "1s"; without a unit only "0".
[[nodiscard]] tl::expected<std::chrono::nanoseconds, QuantityError> parse_duration(
    std::string_view text);

/// The shortest way to write `duration`, not negative, exactly.
[[nodiscard]] std::string format_duration(std::chrono::nanoseconds duration);

}  // namespace cistern
