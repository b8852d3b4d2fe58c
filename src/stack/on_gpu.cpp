#include "stack/on_gpu.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "stack/parse.hpp"
#include "stack/table.hpp"

namespace cistern::language {
namespace {

constexpr std::string_view gpu_stage = "cuda";
constexpr std::string_view gpu_argument = "device";

// In the order in which they stand in the text.
struct Insertion {
  std::size_t position = 0;
  std::string text;
};

/// The number is the first parameter, so any argument without a key is it, or stands behind it.
bool names_gpu(const StageSyntax& stage) {
  return std::ranges::any_of(stage.arguments, [](const Argument& argument) {
    return argument.key.empty() || argument.key == gpu_argument;
  });
}

Insertion insertion_for(const StageSyntax& stage, std::string_view text,
                        const std::string& argument) {
  const std::size_t end = stage.span.position + stage.span.length;
  if (stage.whole.length == stage.span.length) return {end, "(" + argument + ")"};
  return {text.find('(', end) + 1, argument + (stage.arguments.empty() ? "" : ", ")};
}

void collect(const StackSyntax& stages, std::string_view text, const std::string& argument,
             std::vector<Insertion>& insertions) {
  for (const StageSyntax& stage : stages) {
    if (stage.name == gpu_stage && !names_gpu(stage))
      insertions.push_back(insertion_for(stage, text, argument));
    const StageEntry* const entry = find_stage(stage.name);
    const bool holds_stacks = entry != nullptr && entry->kind == Kind::choice;
    for (const auto& [key, key_span, value] : stage.arguments) {
      collect(value.stack, text, argument, insertions);
      // A stack of one stage without parentheses is still a word.
      if (holds_stacks && value.form == Value::Form::word && value.text == gpu_stage)
        insertions.push_back({value.span.position + value.span.length, "(" + argument + ")"});
    }
  }
}

}  // namespace

tl::expected<std::string, StackError> on_gpu(std::string_view text, unsigned gpu) {
  if (auto right = cistern::check(text); !right) return tl::unexpected(std::move(right.error()));
  auto expanded = cistern::expand(text);
  if (!expanded) return expanded;
  const Result<StackSyntax> stages = parse(*expanded);
  std::vector<Insertion> insertions;
  collect(*stages, *expanded, std::string(gpu_argument) + "=" + std::to_string(gpu), insertions);
  std::string result;
  std::size_t copied = 0;
  for (const auto& [position, inserted] : insertions) {
    result.append(*expanded, copied, position - copied);
    result += inserted;
    copied = position;
  }
  return result.append(*expanded, copied);
}

}  // namespace cistern::language
