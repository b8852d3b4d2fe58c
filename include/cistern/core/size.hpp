// Size arithmetic that cannot overflow unseen, and the units sizes are written in. Every rounding
// and every sum of sizes that came from outside goes through here, so that a request near SIZE_MAX
// fails instead of shrinking.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace cistern {

inline constexpr std::size_t unbounded = std::numeric_limits<std::size_t>::max();

// constexpr, since Clang 14 emits a call to what is consteval where a template uses it.
namespace literals {
constexpr std::size_t operator""_KiB(unsigned long long n) {
  return std::size_t{n} << 10;
}
constexpr std::size_t operator""_MiB(unsigned long long n) {
  return std::size_t{n} << 20;
}
constexpr std::size_t operator""_GiB(unsigned long long n) {
  return std::size_t{n} << 30;
}
}  // namespace literals

constexpr std::optional<std::size_t> checked_add(std::size_t a, std::size_t b) noexcept {
  if (b > unbounded - a) return std::nullopt;
  return a + b;
}

constexpr std::optional<std::size_t> checked_multiply(std::size_t a, std::size_t b) noexcept {
  if (a != 0 && b > unbounded / a) return std::nullopt;
  return a * b;
}

/// The smallest multiple of `step`, a power of two, that is at least `bytes`; nothing if that is
/// beyond SIZE_MAX.
constexpr std::optional<std::size_t> round_up(std::size_t bytes, std::size_t step) noexcept {
  if (bytes > unbounded - (step - 1)) return std::nullopt;
  return (bytes + (step - 1)) & ~(step - 1);
}

/// True if what is aligned to `most`, a power of two, is aligned to `alignment`: 0 or a power of
/// two.
constexpr bool is_alignment_within(std::size_t alignment, std::size_t most) noexcept {
  return alignment <= most && (alignment & (alignment - 1)) == 0;
}

constexpr std::size_t saturating_add(std::size_t a, std::size_t b) noexcept {
  return checked_add(a, b).value_or(unbounded);
}

constexpr std::size_t saturating_subtract(std::size_t a, std::size_t b) noexcept {
  return a > b ? a - b : 0;
}

/// `ratio` of `bytes`, rounded down; SIZE_MAX where the product is beyond it or `ratio` is
/// infinite.
constexpr std::size_t scale(std::size_t bytes, double ratio) noexcept {
  const double product = static_cast<double>(bytes) * ratio;
  return product < static_cast<double>(unbounded) ? static_cast<std::size_t>(product) : unbounded;
}

}  // namespace cistern
