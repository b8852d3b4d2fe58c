#include "trace/pickle.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trace/samples.hpp"

namespace cistern::detail::pickle {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;
using ::testing::HasSubstr;

constexpr std::uint64_t plenty = 1 << 20;

std::string pickle_error(std::string_view body, std::uint64_t max_bytes = plenty) {
  const auto document = load("\x80\x04" + std::string(body), max_bytes);
  return document ? "" : document.error().text();
}

/// The one number a pickle holds.
Value value_of(std::string_view body) {
  const auto document = load("\x80\x04" + std::string(body) + ".", plenty);
  EXPECT_TRUE(document) << document.error().text();
  return document ? document->root : Value();
}

TEST(Pickle, ReadsScalars) {
  EXPECT_EQ(value_of("N").kind, Kind::none);
  EXPECT_EQ(value_of("\x88").payload, 1U);
  EXPECT_EQ(value_of("\x89").payload, 0U);
  EXPECT_EQ(value_of("K\xff").payload, 255U);
  EXPECT_EQ(value_of("M\x01\x02").payload, 0x0201U);
  EXPECT_EQ(value_of("J\x01\x02\x03\x04").payload, 0x04030201U);
  EXPECT_EQ(value_of("J\xff\xff\xff\xff").kind, Kind::negative);
  EXPECT_EQ(value_of("J\xff\xff\xff\xff").payload, ~std::uint64_t{0});
  EXPECT_EQ(value_of("G????????").kind, Kind::wide);
}

TEST(Pickle, ReadsIntegersOfAnyWidth) {
  const auto expect = [](std::string_view body, Kind kind, std::uint64_t payload) {
    const Value value = value_of(body);
    EXPECT_EQ(value.kind, kind);
    EXPECT_EQ(value.payload, payload);
  };
  expect("\x8a\x00"sv, Kind::natural, 0);
  expect("\x8a\x01\xfe"sv, Kind::negative, ~std::uint64_t{0} - 1);
  expect("\x8a\x08\x01\x02\x03\x04\x05\x06\x07\x08"sv, Kind::natural, 0x0807060504030201U);
  expect("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00"sv, Kind::natural, ~std::uint64_t{0});
  expect("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff"sv, Kind::wide, 0);  // below -2^63
  expect("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01"sv, Kind::wide, 0);
  expect("\x8a\xff" + std::string(255, '\x01'), Kind::wide, 0);
}

TEST(Pickle, ReadsContainers) {
  // {"a": [1, (2, 3), (), (4,), (5, 6, 7), (8,)]}, with both ways to add items and every way to
  // remember them.
  const std::string bytes = "\x80\x02}q" + std::string(1, '\0') + "X" + "\x01\0\0\0"s + "aq\x01]r" +
                            "\x02\0\0\0"s +
                            "K\x01"
                            "a(K\x02K\x03\x86)K\x04\x85K\x05K\x06K\x07\x87(K\x08tes.";
  const auto document = load(bytes, plenty);
  ASSERT_TRUE(document) << document.error().text();
  const Value* list = document->find(document->container(document->root), "a");
  ASSERT_NE(list, nullptr);
  const auto& items = document->container(*list).items;
  ASSERT_EQ(items.size(), 6U);
  EXPECT_EQ(items[0].payload, 1U);
  std::vector<std::size_t> widths;
  for (const Value& item : items) {
    if (item.kind == Kind::tuple) widths.push_back(document->container(item).items.size());
  }
  EXPECT_EQ(widths, (std::vector<std::size_t>{2, 0, 1, 3, 1}));
  EXPECT_EQ(document->container(items[4]).items[2].payload, 7U);
  EXPECT_EQ(document->find(document->container(document->root), "b"), nullptr);
}

TEST(Pickle, RecallsWhatItMemorised) {
  const auto document = load(
      "\x80\x04](\x8c\x02xy\x94h\x00j\x00\x00\x00\x00K\x05q\x00h\x00"
      "e."sv,
      plenty);
  ASSERT_TRUE(document) << document.error().text();
  const auto& items = document->container(document->root).items;
  ASSERT_EQ(items.size(), 5U);
  EXPECT_EQ(document->text(items[2]), "xy");
  EXPECT_EQ(items[4].payload, 5U);
}

TEST(Pickle, LetsTheLastOfEqualKeysWin) {
  const auto document = load("\x80\x04}(\x8c\x01kK\x01\x8c\x01kK\x02u.", plenty);
  EXPECT_EQ(document->find(document->container(document->root), "k")->payload, 2U);
}

// What unpickling would run, and all else that no snapshot uses.
TEST(Pickle, RefusesOtherInstructionsByName) {
  EXPECT_EQ(
      pickle_error("cos\nsystem\n(S'true'\ntR."),
      "byte 2: opcode GLOBAL 'c': a pickle with code is refused; a snapshot has only plain data");
  const std::vector<std::pair<std::string, std::string>> code = {
      {"R", "REDUCE 'R'"},    {"\x93", "STACK_GLOBAL 0x93"},
      {"b", "BUILD 'b'"},     {"i", "INST 'i'"},
      {"o", "OBJ 'o'"},       {"\x81", "NEWOBJ 0x81"},
      {"\x92", "NEWOBJ_EX"},  {"P", "PERSID 'P'"},
      {"Q", "BINPERSID 'Q'"}, {"\x82", "EXT1 0x82"},
      {"\x83", "EXT2"},       {"\x84", "EXT4"}};
  for (const auto& [bytes, name] : code) {
    EXPECT_THAT(pickle_error("N" + bytes), HasSubstr("byte 3: opcode " + name)) << name;
    EXPECT_THAT(pickle_error("N" + bytes), HasSubstr("a pickle with code is refused")) << name;
  }
  EXPECT_EQ(pickle_error("\x8b\x01"),
            "byte 2: opcode LONG4 0x8b: no snapshot uses it, so it is refused");
  EXPECT_EQ(pickle_error("\xfe"),
            "byte 2: opcode 0xfe: pickles of protocols 2 to 5 have no such opcode");
}

TEST(Pickle, KnowsEveryByteOrRefusesIt) {
  for (int code = 0; code < 256; ++code) {
    const std::string error = pickle_error(std::string(1, static_cast<char>(code)));
    EXPECT_FALSE(error.empty()) << code;  // alone, none leaves a value behind and stops
  }
}

TEST(Pickle, RefusesMalformedPrograms) {
  EXPECT_THAT(pickle_error("K\x01"), HasSubstr("byte 4: the pickle ends without STOP"));
  EXPECT_THAT(pickle_error("X\xff\xff\xff\xffshort"),
              HasSubstr("byte 2: the pickle ends within this instruction"));
  EXPECT_THAT(pickle_error("\x8a\xff\x01."), HasSubstr("ends within this instruction"));
  EXPECT_THAT(pickle_error("\x95\xff\xff\xff\xff\xff\xff\xff\xffN."),
              HasSubstr("the frame is longer than what is left"));
  EXPECT_THAT(pickle_error("."), HasSubstr("should leave one value"));
  EXPECT_THAT(pickle_error("NN."), HasSubstr("should leave one value"));
  EXPECT_THAT(pickle_error("(N."), HasSubstr("should leave one value"));
  EXPECT_THAT(pickle_error("N.N"), HasSubstr("byte 4: 1 bytes follow the end"));
  EXPECT_THAT(pickle_error("\x80\x01N."), HasSubstr("no protocol from 2 to 5"));
  EXPECT_THAT(pickle_error("\x80\x06N."), HasSubstr("no protocol from 2 to 5"));
  EXPECT_THAT(pickle_error("e"), HasSubstr("no MARK goes before"));
  EXPECT_THAT(pickle_error("t"), HasSubstr("no MARK goes before"));
  EXPECT_THAT(pickle_error("(K\x01"
                           "e"),
              HasSubstr("takes more values than there are"));
  EXPECT_THAT(pickle_error("K\x01\x86"), HasSubstr("takes more values than there are"));
  EXPECT_THAT(pickle_error("]a"), HasSubstr("takes more values than there are"));
  EXPECT_THAT(pickle_error("](K\x01"
                           "a"),
              HasSubstr("takes more values than there are"));  // the list is below the mark
  EXPECT_THAT(pickle_error("}K\x01"
                           "a"),
              HasSubstr("appended to what is not a list"));
  EXPECT_THAT(pickle_error("](K\x01K\x02u"), HasSubstr("set in what is not a dict"));
  EXPECT_THAT(pickle_error("}(K\x01u"), HasSubstr("a key has no value"));
  EXPECT_THAT(pickle_error("\x94"), HasSubstr("no value to memorise"));
  EXPECT_THAT(pickle_error("h\x05"), HasSubstr("nothing was memorised under this index"));
  EXPECT_THAT(pickle_error("j\xff\xff\xff\xff"),
              HasSubstr("nothing was memorised under this index"));
  EXPECT_THAT(pickle_error("Nr\xff\xff\xff\xff"), HasSubstr("the memo index skips ahead"));
}

TEST(Pickle, BoundsItsMemory) {
  EXPECT_THAT(pickle_error(std::string(10'000, ']'), 100'000),
              HasSubstr("takes more than max_bytes in memory"));
  EXPECT_THAT(pickle_error(std::string(50'000, '('), 100'000),
              HasSubstr("takes more than max_bytes in memory"));
  std::string recalls = "](K\x01\x94";
  for (int count = 0; count < 10'000; ++count)
    recalls += std::string_view("h\x00", 2);
  EXPECT_THAT(pickle_error(recalls, 100'000), HasSubstr("takes more than max_bytes in memory"));
}

// Neither reading nor destroying goes as deep as the data.
TEST(Pickle, SurvivesDepthAndCycles) {
  const std::string deep = std::string(200'000, ']') + std::string(199'999, 'a') + ".";
  EXPECT_TRUE(load("\x80\x04" + deep, std::uint64_t{1} << 30));
  const auto cyclic = load(
      "\x80\x04]\x94h\x00"
      "a."sv,
      plenty);
  ASSERT_TRUE(cyclic);
  EXPECT_EQ(cyclic->container(cyclic->root).items[0].payload, cyclic->root.payload);
}

}  // namespace
}  // namespace cistern::detail::pickle
