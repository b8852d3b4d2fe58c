// Processes live data that is larger than the memory it may use: on each of some stacks it is
// written, transformed several times and summed, and the sums are held against ones that were
// computed without storing anything. A stack that has not enough memory says so; one that
// oversubscribes goes on, and the time it takes is set beside that in memory.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cistern/core/buffer.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/stack/units.hpp"

namespace {

using Word = std::uint64_t;

struct Job {
  std::size_t bytes = 0;        // all of it live at once
  std::size_t block_bytes = 0;  // of one allocation
  unsigned passes = 0;

  [[nodiscard]] std::size_t blocks() const { return (bytes + block_bytes - 1) / block_bytes; }
  [[nodiscard]] std::size_t words_per_block() const { return block_bytes / sizeof(Word); }
};

/// What a word is at first, and what a pass makes of it (Knuth's MMIX generator).
Word first_value(std::size_t index) {
  return Word{index} * 0x9e3779b97f4a7c15U;
}
Word transformed(Word word) {
  return word * 6364136223846793005U + 1442695040888963407U;
}

/// The sum of all words after the last pass, from arithmetic alone.
Word expected_sum(const Job& job) {
  Word sum = 0;
  for (std::size_t i = 0; i < job.blocks() * job.words_per_block(); ++i) {
    Word word = first_value(i);
    for (unsigned pass = 0; pass < job.passes; ++pass)
      word = transformed(word);
    sum += word;
  }
  return sum;
}

/// The same from memory. Throws OutOfMemory where the stack has not enough.
Word process(const cistern::Stack& stack, const Job& job) {
  std::vector<cistern::Buffer> blocks;
  std::size_t index = 0;
  for (std::size_t i = 0; i < job.blocks(); ++i) {
    blocks.push_back(stack.buffer(job.block_bytes));
    for (Word& word : blocks.back().as<Word>())
      word = first_value(index++);
  }
  Word sum = 0;
  for (unsigned pass = 0; pass < job.passes; ++pass) {
    sum = 0;
    for (const cistern::Buffer& block : blocks) {
      for (Word& word : block.as<Word>())
        sum += word = transformed(word);
    }
  }
  return sum;
}

std::string in_mebibytes(std::size_t bytes) {
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20U));
}

enum class Outcome : std::uint8_t { right, wrong, out_of_memory };

/// Prints one line. `seconds_in_memory` is the time of the first stack that could do the job.
Outcome run(const std::string& text, const Job& job, Word expected,
            std::optional<double>& seconds_in_memory) {
  const cistern::Stack stack = cistern::open(text);
  const auto start = std::chrono::steady_clock::now();
  try {
    const Word sum = process(stack, job);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (!seconds_in_memory) seconds_in_memory = time.count();
    const cistern::Stats stats = stack->stats();
    fmt::print("{}\n  {} in {:.2f} s, {:.2f} times the first; {} reserved, {} spilled\n", text,
               sum == expected ? "right" : "WRONG", time.count(), time.count() / *seconds_in_memory,
               in_mebibytes(stats.reserved.peak), in_mebibytes(stats.spilled.peak));
    return sum == expected ? Outcome::right : Outcome::wrong;
  } catch (const cistern::OutOfMemory& error) {
    fmt::print("{}\n  out of memory with {} live: {}\n", text,
               in_mebibytes(stack->stats().live_requested.peak), error.what());
    return Outcome::out_of_memory;
  }
}

/// Options that are sizes are written as in a stack.
std::size_t size_of(const std::string& text) {
  const auto bytes = cistern::parse_size(text);
  if (!bytes) throw CLI::ValidationError(text + " is not a size such as 256MiB");
  return *bytes;
}

int run_all(std::size_t limit, const Job& job, std::vector<std::string> stacks) {
  if (stacks.empty()) {
    const std::string limited = fmt::format("limit({}) > tier(A) > host", limit);
    stacks = {"tier(A) > host", limited,
              fmt::format("fallback({}, otherwise=tier(C) > host)", limited), "tier(C) > host"};
  }
  fmt::print("{} of live data in blocks of {}, {} passes; the limit is {}\n",
             in_mebibytes(job.blocks() * job.block_bytes), in_mebibytes(job.block_bytes),
             job.passes, in_mebibytes(limit));
  const Word expected = expected_sum(job);
  std::optional<double> seconds_in_memory;
  bool any_wrong = false;
  for (const std::string& stack : stacks)
    any_wrong |= run(stack, job, expected, seconds_in_memory) == Outcome::wrong;
  return any_wrong ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    CLI::App app("Processes more live data than there is memory for, on each of some stacks.");
    std::string limit = "256MiB";
    std::string data;
    std::string block = "4MiB";
    unsigned passes = 4;
    std::vector<std::string> stacks;
    app.add_option("--limit", limit, "What may be in memory at once")->capture_default_str();
    app.add_option("--data", data, "How much data lives at once; 1.5 times the limit unless given");
    app.add_option("--block", block, "Of one allocation")->capture_default_str();
    app.add_option("--passes", passes, "How often all of it is transformed")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--stack", stacks,
                   "A stack to run on, instead of the four that show what this is about");
    try {
      app.parse(argc, argv);
      const std::size_t limit_bytes = size_of(limit);
      const Job job{.bytes = data.empty() ? limit_bytes / 2 * 3 : size_of(data),
                    .block_bytes = size_of(block),
                    .passes = passes};
      if (job.words_per_block() == 0) throw CLI::ValidationError("a block has at least 8 bytes");
      return run_all(limit_bytes, job, stacks);
    } catch (const CLI::Error& error) {
      return app.exit(error) == 0 ? 0 : 2;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "oversubscribe: %s\n", error.what());
    return 1;
  }
}
