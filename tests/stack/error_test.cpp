#include <string>

#include <gtest/gtest.h>

#include "cistern/stack/stack.hpp"
#include "support/errors.hpp"
#include "support/stage_list.hpp"

namespace cistern {
namespace {

using testing::stack_error;

const std::string known_stages = "(there are " + testing::stage_list() + ")";
constexpr const char* size_examples = "4096, 64KiB, 1.5GiB or 80GB";
constexpr const char* parameters =
    "buckets, per_doubling, slack, slack_bytes, max_bytes, per_bucket, when_full, idle_ratio";

struct Wrong {
  std::string text;
  std::string message;
  std::string caret;  // below the text
};

class WrongText : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongText, IsShownWithACaret) {
  EXPECT_EQ(stack_error(GetParam().text),
            GetParam().message + "\n  " + GetParam().text + "\n  " + GetParam().caret);
}

INSTANTIATE_TEST_SUITE_P(
    Grammar, WrongText,
    ::testing::Values(
        Wrong{"", "the text is empty; write a stack, for example: cache > host", "^"},
        Wrong{"  ", "the text is empty; write a stack, for example: cache > host", "  ^"},
        Wrong{"cache >", "expected a stage, but the text ends here", "       ^"},
        Wrong{"> host", "expected a stage, found '>'", "^"},
        Wrong{"cache > > host", "expected a stage, found '>'", "        ^"},
        Wrong{"cache host", "expected '>' or the end, found 'host'", "      ^~~~"},
        Wrong{"cache > host)", "expected '>' or the end, found ')'", "            ^"},
        Wrong{"(cache) > host", "expected a stage, found '('", "^"},
        Wrong{"cache(max_bytes=4GiB", "'(' is never closed: ')' is missing", "     ^"},
        Wrong{"cache(", "expected a value, but the text ends here", "      ^"},
        Wrong{"cache(max_bytes=", "expected a value, but the text ends here", "                ^"},
        Wrong{"cache(max_bytes=) > host", "expected a value, found ')'", "                ^"},
        Wrong{"cache(,) > host", "expected a value, found ','", "      ^"},
        Wrong{"cache(pow2,) > host", "expected a value, found ')'", "           ^"},
        Wrong{"limit(4 GiB) > host", "expected ',' or ')', found 'GiB'", "        ^~~"},
        Wrong{"cache(max_bytes 4) > host", "expected ',' or ')', found '4'", "                ^"},
        Wrong{"cache(a=b=c) > host", "expected ',' or ')', found '='", "         ^"},
        Wrong{"cache(buckets=[1KiB", "'[' is never closed: ']' is missing", "              ^"},
        Wrong{"cache(buckets=[]) > host", "expected a value, found ']'", "               ^"},
        Wrong{"cache(buckets=[1 2]) > host", "expected ',' or ']', found '2'",
              "                 ^"},
        Wrong{"trace(/tmp/x) > host",
              "unexpected '/'; a path or other text stands in double quotes", "      ^"},
        Wrong{"cache ; host", "unexpected ';'; a path or other text stands in double quotes",
              "      ^"},
        Wrong{"trace(\"x) > host", "the text that begins here lacks its closing '\"'",
              "      ^~~~~~~~~~"},
        Wrong{"trace(\"a\\b\") > host", R"(within quotes a backslash is written \\ and a quote \")",
              "        ^"},
        Wrong{"trace(\"a\\", R"(within quotes a backslash is written \\ and a quote \")",
              "        ^"}));

INSTANTIATE_TEST_SUITE_P(
    Stages, WrongText,
    ::testing::Values(
        Wrong{"cach > host",
              std::string("there is no stage 'cach' ") + known_stages + "; did you mean 'cache'?",
              "^~~~"},
        Wrong{"cahce > host",
              std::string("there is no stage 'cahce' ") + known_stages + "; did you mean 'cache'?",
              "^~~~~"},
        Wrong{"cache > hostt",
              std::string("there is no stage 'hostt' ") + known_stages + "; did you mean 'host'?",
              "        ^~~~~"},
        Wrong{"cache > pool > host", std::string("there is no stage 'pool' ") + known_stages,
              "        ^~~~"},
        Wrong{"Cache > host",
              std::string("there is no stage 'Cache' ") + known_stages + "; did you mean 'cache'?",
              "^~~~~"},
        Wrong{"4KiB", std::string("there is no stage '4KiB' ") + known_stages, "^~~~"},
        Wrong{"host > cache",
              "'host' is a device: it stands at the right end, with nothing below it", "^~~~"},
        Wrong{"cache > host > host",
              "'host' is a device: it stands at the right end, with nothing below it",
              "        ^~~~"},
        Wrong{"limit(1GiB) > cache(pow2)",
              "a stack ends in a device (host, cuda, opencl, simulated), a choice of stacks "
              "(fallback, first, deferred) or a resource of the program, but nothing stands below "
              "'cache'",
              "              ^~~~~"},
        Wrong{"mlx",
              "a stack ends in a device (host, cuda, opencl, simulated), a choice of stacks "
              "(fallback, first, deferred) or a resource of the program, but nothing stands below "
              "'cache'",
              "^~~"},
        Wrong{"mlx(slack=3) > host",
              "mlx is a recipe and takes no arguments; it stands for cache(buckets=fit, slack=2, "
              "slack_bytes=8KiB, "
              "max_bytes=32MiB, idle_ratio=none)",
              "^~~~~~~~~~~~"}));

INSTANTIATE_TEST_SUITE_P(
    Arguments, WrongText,
    ::testing::Values(
        Wrong{"cache(max_byte=1) > host",
              std::string("cache has no parameter 'max_byte' (it has ") + parameters +
                  "); did you mean 'max_bytes'?",
              "      ^~~~~~~~"},
        Wrong{"cache(x = 1) > host",
              std::string("cache has no parameter 'x' (it has ") + parameters + ")", "      ^"},
        Wrong{"limit(1KiB, bytes=2KiB) > host", "bytes is given twice", "            ^~~~~~~~~~"},
        Wrong{"cache(per_bucket=1, per_bucket = 2) > host", "per_bucket is given twice",
              "                    ^~~~~~~~~~~~~~"},
        Wrong{"cache(max_bytes=1, pow2) > host",
              "this needs a name: it stands behind an argument that has one",
              "                   ^~~~"},
        Wrong{"limit(1, [2, 3]) > host", "one argument too many: limit takes bytes",
              "         ^~~~~~"},
        Wrong{"limit > host",
              "limit needs bytes (size or percent): at most so many at any time; a percentage is "
              "of the device's memory, 0 "
              "refuses all",
              "^~~~~"},
        Wrong{"trace () > host",
              "trace needs file (text): created or overwritten when the stack is opened; no other "
              "may record into it",
              "^~~~~~~~"},
        Wrong{"cache(buckets=pow2, slack=2) > host", "slack applies only with buckets=fit",
              "                    ^~~~~~~"},
        Wrong{"cache(slack_bytes=2) > host", "slack_bytes applies only with buckets=fit",
              "      ^~~~~~~~~~~~~"},
        Wrong{"cache(per_doubling=8, buckets=table) > host",
              "per_doubling applies only with buckets=geometric", "      ^~~~~~~~~~~~~~"},
        Wrong{"cache(buckets=fit, per_bucket=1) > host",
              "per_bucket applies only with buckets other than fit",
              "                   ^~~~~~~~~~~~"}));

INSTANTIATE_TEST_SUITE_P(
    Values, WrongText,
    ::testing::Values(
        Wrong{"cache(slack_bytes=2GX) > host",
              std::string("slack_bytes: '2GX' is not a size; write ") + size_examples,
              "                  ^~~"},
        Wrong{"limit(lots) > host",
              "bytes: 'lots' is not a size or percentage; write 4096, 64KiB, 1.5GiB, 80GB or 90%",
              "      ^~~~"},
        Wrong{"cache(max_bytes=\"4GiB\") > host",
              "max_bytes: text in quotes is not a size or percentage; write 4096, 64KiB, 1.5GiB, "
              "80GB or 90%; or none",
              "                ^~~~~~"},
        Wrong{"limit(cache > host) > host",
              "bytes: a stack is not a size or percentage; write 4096, 64KiB, 1.5GiB, 80GB or 90%",
              "      ^~~~~~~~~~~~"},
        Wrong{"limit(20EiB) > host",
              "bytes: '20EiB' is out of range; it must be at most 18446744073709551615",
              "      ^~~~~"},
        Wrong{"limit(100.5%) > host",
              "bytes: '100.5%' is out of range; it must be from 0% to 100% of the device's memory",
              "      ^~~~~~"},
        Wrong{"limit(-5%) > host",
              "bytes: '-5%' is not a size or percentage; write 4096, 64KiB, 1.5GiB, 80GB or 90%",
              "      ^~~"},
        Wrong{"cache(per_bucket=-1) > host",
              "per_bucket: '-1' is not a whole number of 0 or more; write 0, 16 or 1000; or none",
              "                 ^~"},
        Wrong{"cache(per_bucket=1.5) > host",
              "per_bucket: '1.5' is not a whole number of 0 or more; write 0, 16 or 1000; or none",
              "                 ^~~"},
        Wrong{
            "simulated(seed=18446744073709551616)",
            "seed: '18446744073709551616' is out of range; it must be at most 18446744073709551615",
            "               ^~~~~~~~~~~~~~~~~~~~"},
        Wrong{"cache(per_doubling=3) > host",
              "per_doubling: '3' is out of range; it must be a power of two from 1 to 64",
              "                   ^"},
        Wrong{"cache(per_doubling=128) > host",
              "per_doubling: '128' is out of range; it must be a power of two from 1 to 64",
              "                   ^~~"},
        Wrong{"cache(per_doubling=4294967296) > host",
              "per_doubling: '4294967296' is out of range; it must be at most 4294967295",
              "                   ^~~~~~~~~~"},
        Wrong{"cache(buckets=fit, slack=0.5) > host",
              "slack: '0.5' is out of range; it must be at least 1",
              "                         ^~~"},
        Wrong{"cache(buckets=fit, slack=inf) > host",
              "slack: 'inf' is not a number of 0 or more; write 0, 2 or 1.5",
              "                         ^~~"},
        Wrong{"cache(idle_ratio=-1) > host",
              "idle_ratio: '-1' is not a ratio of 0 or more; write 15% or 0.15; or none",
              "                 ^~"},
        Wrong{"cache(when_full=evit) > host",
              "when_full: 'evit' is not one of evict, reject; did you mean 'evict'?",
              "                ^~~~"},
        Wrong{"cache(when_full=[evict]) > host", "when_full: a list is not one of evict, reject",
              "                ^~~~~~~"},
        Wrong{"cache(tabel) > host",
              "buckets: 'tabel' is not one of geometric, pow2, table, fit or a list of "
              "sizes such "
              "as [4KiB, 1MiB]; did "
              "you mean 'table'?",
              "      ^~~~~"},
        Wrong{"cache(fti) > host",
              "buckets: 'fti' is not one of geometric, pow2, table, fit or a list of sizes "
              "such as "
              "[4KiB, 1MiB]; did you mean 'fit'?",
              "      ^~~"},
        Wrong{"cache([4KiB, 1KiB]) > host",
              "buckets: '1KiB' is out of range; it must be more than the one before",
              "             ^~~~"},
        Wrong{"cache([0]) > host", "buckets: '0' is out of range; it must be at least 1",
              "       ^"},
        Wrong{"cache([15EiB]) > host", "buckets: '15EiB' is out of range; it must be at most 4EiB",
              "       ^~~~~"},
        Wrong{"cache([90%]) > host",
              std::string("buckets: '90%' is not a size; write ") + size_examples, "       ^~~"},
        Wrong{"host(zero=yes)", "zero: 'yes' is not one of true, false", "          ^~~"},
        Wrong{"host(map_from=0)", "map_from: '0' is out of range; it must be at least 1",
              "              ^"},
        Wrong{"simulated(granularity=500)",
              "granularity: '500' is out of range; it must be a power of two from 1 to 1GiB",
              "                      ^~~"},
        Wrong{"simulated(alignment=2GiB)",
              "alignment: '2GiB' is out of range; it must be a power of two from 1 to 1GiB",
              "                    ^~~~"},
        Wrong{"simulated(fail_probability=1.1)",
              "fail_probability: '1.1' is out of range; it must be from 0% to 100%",
              "                           ^~~"},
        Wrong{"simulated(free_latency=5)",
              "free_latency: '5' is not a duration; write 5ns, 10us, 250ms, 1.5s or 0",
              "                       ^"},
        Wrong{"simulated(free_latency=9999999999999s)",
              "free_latency: '9999999999999s' is out of range; it must be at most "
              "9223372036854775807ns",
              "                       ^~~~~~~~~~~~~~"},
        Wrong{"trace(\"\") > host", "file: this must not be empty", "      ^~"},
        Wrong{"trace([x]) > host",
              "file: a list is not a text; write a word, or anything in double quotes",
              "      ^~~"}));

TEST(StackError, TheCaretStandsWhereItShouldWhateverTheText) {
  EXPECT_EQ(stack_error("cache\n(\tmax_byte\x01 = 1)"),
            "unexpected byte 0x01; a path or other text stands in double quotes\n"
            "  cache ( max_byte  = 1)\n"
            "                  ^");
  EXPECT_EQ(stack_error("trace(\"/home/jos\xC3\xA9\", \x7F) > host"),
            "unexpected byte 0x7F; a path or other text stands in double quotes\n"
            "  trace(\"/home/jos..\", .) > host\n"
            "                       ^");
  EXPECT_EQ(stack_error("cache > h\xC3\xB6st"),
            "unexpected byte 0xC3; a path or other text stands in double quotes\n"
            "  cache > h..st\n"
            "           ^");
  EXPECT_EQ(stack_error(std::string_view("host\0", 5)),
            "unexpected byte 0x00; a path or other text stands in double quotes\n"
            "  host \n"
            "      ^");
  EXPECT_EQ(stack_error(std::string_view("trace(\"a\0\") > host", 18)),
            "a text cannot hold the byte 0\n"
            "  trace(\"a \") > host\n"
            "          ^");
}

TEST(StackError, OfALongTextShowsTheSurroundings) {
  const std::string many(200, ' ');
  EXPECT_EQ(stack_error("cach > host" + many), std::string("there is no stage 'cach' ") +
                                                   known_stages + "; did you mean 'cache'?\n" +
                                                   "  cach > host" + many.substr(0, 89) +
                                                   "...\n"
                                                   "  ^~~~");
  EXPECT_EQ(stack_error(many + "cach > host" + many),
            std::string("there is no stage 'cach' ") + known_stages + "; did you mean 'cache'?\n" +
                "  ..." + many.substr(0, 40) + "cach > host" + many.substr(0, 49) +
                "...\n"
                "     " +
                many.substr(0, 40) + "^~~~");
  EXPECT_EQ(stack_error(many + "cache >"),
            "expected a stage, but the text ends here\n"
            "  ..." +
                many.substr(0, 93) +
                "cache >\n"
                "     " +
                many.substr(0, 100) + "^");
  const std::string name(1000, 'x');
  EXPECT_EQ(stack_error(name), "there is no stage '" + name.substr(0, 40) + "...' " + known_stages +
                                   "\n" + "  " + name.substr(0, 100) + "...\n" + "  ^" +
                                   std::string(99, '~'));
}

TEST(StackError, StaysWithinTheText) {
  const StackError beyond("host", 10, 10, "message");
  EXPECT_EQ(beyond.position(), 4U);
  EXPECT_EQ(beyond.length(), 0U);
  EXPECT_EQ(beyond.message(), "message");
  EXPECT_STREQ(beyond.what(), "message\n  host\n      ^");
  EXPECT_EQ(StackError("host", 2, 10, "message").length(), 2U);
}

}  // namespace
}  // namespace cistern
