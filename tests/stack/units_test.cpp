#include "cistern/stack/units.hpp"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

using std::chrono::nanoseconds;

TEST(Units, ReadsSizes) {
  const std::pair<const char*, std::size_t> sizes[] = {
      {"0", 0},
      {"4096", 4096},
      {"1B", 1},
      {"64KiB", 65'536},
      {"64kib", 65'536},
      {"1.5GiB", 1'610'612'736},
      {"80GB", 80'000'000'000},
      {"80gb", 80'000'000'000},
      {"1kB", 1000},
      {"0.5kB", 500},
      {"1.000000001GB", 1'000'000'001},
      {"0.1KiB", 102},
      {"15EiB", std::size_t{15} << 60U},
      {"18EB", 18'000'000'000'000'000'000U},
      {"18446744073709551615", std::numeric_limits<std::size_t>::max()},
      {"15.999999999EiB", 18'446'744'072'556'630'111U},
      {"9007199254740993", 9'007'199'254'740'993},  // 2^53 + 1: no double says so
      {"000000000000000000000000000000001", 1},
  };
  for (const auto& [text, bytes] : sizes) {
    const auto read = parse_size(text);
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(*read, bytes) << text;
  }
}

TEST(Units, RefusesWhatIsNoSize) {
  for (const char* text : {"",
                           "B",
                           "KiB",
                           "-1",
                           "+1",
                           "1.",
                           ".5GiB",
                           "1.GiB",
                           "1.5",
                           "1.5B",
                           "4 KiB",
                           "4K",
                           "4Gi",
                           "0x10",
                           "1e3",
                           "1,000",
                           "nan",
                           "4KiBB",
                           "1.0000000001GiB",
                           "1.5.5GiB",
                           "90%"}) {
    const auto read = parse_size(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error(), QuantityError::malformed) << text;
  }
  for (const char* text : {"18446744073709551616", "16EiB", "16384PiB", "19EB",
                           "99999999999999999999999EiB", "18.5EB", "17179869184GiB"}) {
    const auto read = parse_size(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error(), QuantityError::too_large) << text;
  }
}

TEST(Units, WritesSizesShortAndExact) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(1), "1");
  EXPECT_EQ(format_size(512), "512");
  EXPECT_EQ(format_size(1024), "1KiB");
  EXPECT_EQ(format_size(4097), "4097");
  EXPECT_EQ(format_size(std::size_t{1536} << 20U), "1536MiB");
  EXPECT_EQ(format_size(80'000'000'000), "80GB");
  EXPECT_EQ(format_size(std::size_t{4} << 30U), "4GiB");
  EXPECT_EQ(format_size(std::numeric_limits<std::size_t>::max()), "18446744073709551615");
}

TEST(Units, WhatIsWrittenReadsTheSame) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const std::size_t scale =
        random.chance(50) ? std::size_t{1} << random.below(50) : 1000 * random.below(1000);
    const std::size_t bytes = random.below(1000) * scale;
    const auto read = parse_size(format_size(bytes));
    ASSERT_TRUE(read) << bytes;
    ASSERT_EQ(*read, bytes);
    const nanoseconds duration(static_cast<std::int64_t>(bytes));
    ASSERT_EQ(parse_duration(format_duration(duration)).value(), duration);
  }
}

TEST(Units, ReadsDurations) {
  EXPECT_EQ(parse_duration("0").value(), nanoseconds(0));
  EXPECT_EQ(parse_duration("5ns").value(), nanoseconds(5));
  EXPECT_EQ(parse_duration("10us").value(), nanoseconds(10'000));
  EXPECT_EQ(parse_duration("1.5us").value(), nanoseconds(1500));
  EXPECT_EQ(parse_duration("250ms").value(), nanoseconds(250'000'000));
  EXPECT_EQ(parse_duration("1s").value(), nanoseconds(1'000'000'000));
  EXPECT_EQ(parse_duration("1"), tl::unexpected(QuantityError::malformed));
  EXPECT_EQ(parse_duration("1.5ns"), tl::unexpected(QuantityError::malformed));
  EXPECT_EQ(parse_duration("-1s"), tl::unexpected(QuantityError::malformed));
  EXPECT_EQ(parse_duration("9223372036854775807ns").value(), nanoseconds::max());
  EXPECT_EQ(parse_duration("9223372036854775808ns"), tl::unexpected(QuantityError::too_large));
  EXPECT_EQ(parse_duration("9223372037s"), tl::unexpected(QuantityError::too_large));
}

}  // namespace
}  // namespace cistern
