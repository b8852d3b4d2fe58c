// The table of stages, and that the documentation says what is so: its blocks of stacks open, and
// its blocks of errors are what the texts in them give.
#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/stack/stack.hpp"
#include "cistern/stack/stages.hpp"
#include "support/environment.hpp"

namespace cistern {
namespace {

std::vector<std::string> names_of_kind(const std::string& kind) {
  std::vector<std::string> names;
  for (const StageDoc& doc : stage_docs()) {
    if (doc.kind == kind) names.push_back(doc.name);
  }
  return names;
}

TEST(StageDocs, ListEveryStageAndRecipeOnce) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(names_of_kind("adaptor"), (Names{"limit", "retry", "trace", "resident"}));
  EXPECT_EQ(names_of_kind("pool"), (Names{"cache", "coalesce", "virtual", "arena", "planned"}));
  EXPECT_EQ(names_of_kind("choice"), (Names{"fallback", "first", "deferred"}));
  EXPECT_EQ(names_of_kind("device"), (Names{"host", "cuda", "opencl", "simulated"}));
  EXPECT_EQ(names_of_kind("recipe"), (Names{"netcl", "netcl_unbounded", "mlx", "pytorch", "cupy",
                                            "rmm_pool", "bfc", "tier"}));
  std::set<std::string> names;
  for (const StageDoc& doc : stage_docs())
    names.insert(doc.name);
  EXPECT_EQ(names.size(), stage_docs().size());
}

TEST(StageDocs, SayAllThereIsToSay) {
  for (const StageDoc& doc : stage_docs()) {
    EXPECT_FALSE(doc.text.empty()) << doc.name;
    EXPECT_EQ(doc.text.find('\n'), std::string::npos) << doc.name;
    EXPECT_EQ(doc.expansion.empty(), doc.kind != "recipe") << doc.name;
    std::set<std::string> names;
    for (const ParameterDoc& parameter : doc.parameters) {
      EXPECT_TRUE(names.insert(parameter.name).second) << doc.name << ", " << parameter.name;
      EXPECT_FALSE(parameter.type.empty()) << doc.name << ", " << parameter.name;
      EXPECT_FALSE(parameter.text.empty()) << doc.name << ", " << parameter.name;
      EXPECT_FALSE(parameter.default_value.empty()) << doc.name << ", " << parameter.name;
    }
  }
}

TEST(StageDocs, DefaultsAreThoseOfTheOptions) {
  const std::vector<StageDoc> docs = stage_docs();
  const auto default_of = [&](const std::string& stage, const std::string& parameter) {
    for (const StageDoc& doc : docs) {
      for (const ParameterDoc& each : doc.parameters) {
        if (doc.name == stage && each.name == parameter) return each.default_value;
      }
    }
    return std::string("none such");
  };
  EXPECT_EQ(default_of("limit", "bytes"), "required");
  EXPECT_EQ(default_of("trace", "file"), "required");
  EXPECT_EQ(default_of("cache", "buckets"), "geometric");
  EXPECT_EQ(default_of("cache", "per_doubling"), "8");
  EXPECT_EQ(default_of("cache", "slack"), "2");
  EXPECT_EQ(default_of("cache", "slack_bytes"), "8KiB");
  EXPECT_EQ(default_of("cache", "max_bytes"), "none");
  EXPECT_EQ(default_of("cache", "per_bucket"), "none");
  EXPECT_EQ(default_of("cache", "when_full"), "evict");
  EXPECT_EQ(default_of("cache", "idle_ratio"), "15%");
  EXPECT_EQ(default_of("host", "map_from"), "256KiB");
  EXPECT_EQ(default_of("host", "huge_pages"), "automatic");
  EXPECT_EQ(default_of("host", "zero"), "false");
  EXPECT_EQ(default_of("simulated", "capacity"), "16GiB");
  EXPECT_EQ(default_of("simulated", "free_latency"), "0");
  EXPECT_EQ(default_of("simulated", "fail_probability"), "0%");
  EXPECT_EQ(default_of("simulated", "fail_beyond"), "none");
}

/// Writing out a default is the same as leaving it out: each one reads under its own parameter.
TEST(StageDocs, DefaultsCanBeWritten) {
  for (const StageDoc& doc : stage_docs()) {
    if (doc.kind == "recipe") continue;
    for (const ParameterDoc& parameter : doc.parameters) {
      std::string text = doc.name + "(" + parameter.name + "=" + parameter.default_value;
      if (doc.kind == "choice") {
        text = doc.name + (doc.name == "first" ? "(stacks=host" : "(stack=host, otherwise=host");
      } else if (parameter.default_value == "required") {
        text = doc.name + "(" + parameter.name + "=4096";
      } else {
        for (const std::string needed : {"buckets=fit", "memory=file"}) {
          if (parameter.text.find("only with " + needed) != std::string::npos)
            text += ", " + needed;
        }
      }
      text += doc.kind == "device" || doc.kind == "choice" ? ")" : ") > host";
      const auto right = check(text);
      EXPECT_TRUE(right) << (right ? "" : right.error().what());
    }
  }
}

// --- docs/stack-language.md ---

/// The blocks of the page that are fenced as `kind`, line by line.
std::vector<std::vector<std::string>> fenced(const std::string& kind) {
  std::ifstream page(CISTERN_SOURCE_DIR "/docs/stack-language.md");
  std::vector<std::vector<std::string>> found;
  bool within = false;
  for (std::string line; std::getline(page, line);) {
    if (within && line == "```") {
      within = false;
    } else if (within) {
      found.back().push_back(line);
    } else if (line == "```" + kind) {
      within = true;
      found.emplace_back();
    }
  }
  return found;
}

TEST(StackLanguagePage, ItsStacksAreRight) {
  const Bindings bindings = {{"mine", open("host").resource()}};
  std::size_t seen = 0;
  for (const std::vector<std::string>& block : fenced("stack")) {
    for (const std::string& text : block) {
      const auto right = check(text, bindings);
      EXPECT_TRUE(right) << (right ? "" : right.error().what());
      ++seen;
    }
  }
  EXPECT_GE(seen, 10U);
}

TEST(StackLanguagePage, ItsErrorsAreWhatTheTextsGive) {
  const testing::Environment environment("NETCL_MAX_CACHED_GB", "plenty");
  std::size_t seen = 0;
  for (const std::vector<std::string>& block : fenced("error")) {
    ASSERT_EQ(block.size() % 3, 0U) << block.front();
    for (std::size_t i = 0; i < block.size(); i += 3) {
      const std::string text = block[i + 1].substr(2);
      const auto stack = try_open(text);
      ASSERT_FALSE(stack) << text;
      EXPECT_EQ(stack.error().what(), block[i] + "\n" + block[i + 1] + "\n" + block[i + 2]);
      ++seen;
    }
  }
  EXPECT_GE(seen, 20U);
}

}  // namespace
}  // namespace cistern
