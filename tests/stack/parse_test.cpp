#include "stack/parse.hpp"

#include <string>

#include <gtest/gtest.h>

namespace cistern::language {
namespace {

std::string shown(const StackSyntax& stages);

std::string shown(const Value& value) {
  switch (value.form) {
    case Value::Form::word:
      return value.text;
    case Value::Form::text:
      return "<" + value.text + ">";
    case Value::Form::list: {
      std::string list = "[";
      for (const Value& each : value.list)
        list += shown(each) + " ";
      return list + "]";
    }
    case Value::Form::stack:
      return "{" + shown(value.stack) + "}";
  }
  return "?";
}

std::string shown(const StackSyntax& stages) {
  std::string text;
  for (const StageSyntax& stage : stages) {
    text += (text.empty() ? "" : " > ") + stage.name;
    for (const Argument& argument : stage.arguments)
      text += " " + argument.key + ":" + shown(argument.value);
  }
  return text;
}

/// The tree of `text` in another notation, or the message of its problem.
std::string tree(const std::string& text) {
  const Result<StackSyntax> stages = parse(text);
  return stages ? shown(*stages) : stages.error().message;
}

TEST(Parse, Stages) {
  EXPECT_EQ(tree("host"), "host");
  EXPECT_EQ(tree("limit(2GiB) > cache > host"), "limit :2GiB > cache > host");
  EXPECT_EQ(tree("cache()>host"), "cache > host");
  EXPECT_EQ(tree("mlx-2 > _host.0"), "mlx-2 > _host.0");
}

TEST(Parse, Values) {
  EXPECT_EQ(tree("a(1, 64KiB, 90%, 1.5e-3, word)"), "a :1 :64KiB :90% :1.5e-3 :word");
  EXPECT_EQ(tree("a(b=1, c=-2, d=+3)"), "a b:1 c:-2 d:+3");
  EXPECT_EQ(tree(R"(a("x > y", k="\"\\ [(,=", ""))"), R"(a :<x > y> k:<"\ [(,=> :<>)");
  EXPECT_EQ(tree("a([1, 2KiB, [x], \"y\"])"), "a :[1 2KiB [x ] <y> ]");
}

TEST(Parse, StacksAsValues) {
  EXPECT_EQ(tree("fallback(a > b, c)"), "fallback :{a > b} :c");
  EXPECT_EQ(tree("fallback(a(x=1) > b, k = c(2))"), "fallback :{a x:1 > b} k:{c :2}");
  EXPECT_EQ(tree("first(a, first(b() > c, [d > e]))"), "first :a :{first :{b > c} :[{d > e} ]}");
}

TEST(Parse, SpaceIsFreeBetweenTokens) {
  EXPECT_EQ(tree(" \t\r\n a\n( k\t= 1 ,[ 2 ,3 ] , \"x\" )\n>\nb  "), "a k:1 :[2 3 ] :<x> > b");
}

TEST(Parse, SpansCoverWhatWasWritten) {
  const std::string text = " cache ( buckets = [1 , 2] ,x = a > b ) > host";
  const StackSyntax stages = parse(text).value();
  const auto at = [&](Span span) { return text.substr(span.position, span.length); };
  EXPECT_EQ(at(stages[0].span), "cache");
  EXPECT_EQ(at(stages[0].whole), "cache ( buckets = [1 , 2] ,x = a > b )");
  EXPECT_EQ(at(stages[0].arguments[0].key_span), "buckets");
  EXPECT_EQ(at(stages[0].arguments[0].value.span), "[1 , 2]");
  EXPECT_EQ(at(stages[0].arguments[0].span()), "buckets = [1 , 2]");
  EXPECT_EQ(at(stages[0].arguments[1].value.span), "a > b");
  EXPECT_EQ(at(stages[1].whole), "host");
}

TEST(Parse, BoundsHoldExactly) {
  const auto repeated = [](const std::string& text, std::size_t times) {
    std::string all;
    for (std::size_t i = 0; i < times; ++i)
      all += text;
    return all;
  };
  EXPECT_TRUE(parse(std::string(longest_text, 'a')));
  EXPECT_EQ(tree(std::string(longest_text + 1, 'a')), "the text is too long: at most 65536 bytes");

  EXPECT_TRUE(parse(repeated("a>", most_stages - 1) + "a"));
  EXPECT_EQ(tree(repeated("a>", most_stages) + "a"), "a stack has at most 64 stages");

  EXPECT_TRUE(parse(repeated("a(", deepest_nesting) + "a" + repeated(")", deepest_nesting)));
  EXPECT_TRUE(parse("a(" + repeated("[", deepest_nesting - 1) + "1" +
                    repeated("]", deepest_nesting - 1) + ")"));
  const std::string too_deep = "nested too deeply: at most 32 parentheses and brackets may be open";
  EXPECT_EQ(tree(repeated("a(", deepest_nesting + 1)), too_deep);
  EXPECT_EQ(tree("a(" + repeated("[", deepest_nesting)), too_deep);
  EXPECT_TRUE(parse("a(" + repeated("[1],", 100) + "[1])")) << "what is closed no longer counts";
}

}  // namespace
}  // namespace cistern::language
