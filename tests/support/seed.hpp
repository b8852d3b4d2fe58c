// Seeds of property tests: fixed unless CISTERN_SEED is set, and shown when a test fails.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace cistern::testing {

/// The seed from CISTERN_SEED, else `otherwise`.
inline std::uint64_t seed_or(std::uint64_t otherwise) {
  const char* text = std::getenv("CISTERN_SEED");  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// How many seeds a long test tries: a third of `count` where sanitizers slow each of them down.
constexpr std::uint64_t seeds_at_a_time(std::uint64_t count) {
#ifdef CISTERN_SANITIZED
  return (count + 2) / 3;
#else
  return count;
#endif
}

inline std::string replay_hint(std::uint64_t seed) {
  return "replay with CISTERN_SEED=" + std::to_string(seed);
}

/// Random numbers that are the same on every machine: an exactly specified engine, no distribution.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  bool chance(unsigned percent) { return below(100) < percent; }
  /// Between 1 and 2^max_bits, every magnitude as likely.
  std::size_t size(unsigned max_bits) {
    const std::uint64_t magnitude = std::uint64_t{1} << below(max_bits);
    return static_cast<std::size_t>(magnitude + below(magnitude));
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace cistern::testing
