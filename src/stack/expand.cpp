#include "stack/expand.hpp"

#include <algorithm>
#include <utility>

#include "stack/bind.hpp"
#include "stack/parse.hpp"
#include "stack/recipes.hpp"
#include "stack/wording.hpp"

namespace cistern::language {

const Expansion::Piece& Expansion::piece_at(std::size_t position) const {
  const auto behind =
      std::upper_bound(pieces_.begin(), pieces_.end(), position,
                       [](std::size_t sought, const Piece& piece) { return sought < piece.start; });
  return behind == pieces_.begin() ? pieces_.front() : *std::prev(behind);
}

Span Expansion::in_original(Span span) const {
  const std::size_t last = span.position + std::max<std::size_t>(span.length, 1) - 1;
  const Piece& first_piece = piece_at(span.position);
  const Piece& last_piece = piece_at(last);
  const std::size_t start =
      first_piece.original.position + (first_piece.copied ? span.position - first_piece.start : 0);
  if (last_piece.copied && span.length == 0) return {start, 0};
  const std::size_t end =
      last_piece.original.position +
      (last_piece.copied ? last + 1 - last_piece.start : last_piece.original.length);
  return {start, end > start ? end - start : 0};
}

/// Writes the expansion from left to right.
class Expander {
 public:
  Expander(std::string_view text, const Bindings& bindings)
      : original_(text), bindings_(bindings) {}

  Result<Expansion> run(const StackSyntax& stages) {
    copy(0, stages.front().whole.position);
    Result<void> written = write_from(stages, 0, {});
    if (!written) return problem_of(written);
    copy(end_of(stages.back()), original_.size());
    Result<StackSyntax> tree = parse(expansion_.text_);  // the whole may be nested too deeply
    if (!tree) {
      tree.error().span = expansion_.in_original(tree.error().span);
      return problem_of(tree);
    }
    expansion_.stages_ = std::move(*tree);
    return std::move(expansion_);
  }

 private:
  static std::size_t end_of(const StageSyntax& stage) {
    return stage.whole.position + stage.whole.length;
  }

  /// The stages from the `first` on, the device at their end with `device_arguments` besides its
  /// own.
  Result<void> write_from(const StackSyntax& stages, std::size_t first,
                          const std::string& device_arguments) {
    for (std::size_t i = first; i < stages.size(); ++i) {
      const StageSyntax& stage = stages[i];
      const Recipe* recipe = find_recipe(stage.name);
      if (Result<void> right = check(stage, recipe); !right) return right;
      if (recipe != nullptr && recipe->around != nullptr)
        return write_around(*recipe, stages, i, device_arguments);
      const bool is_last = i + 1 == stages.size();
      Result<void> written = recipe != nullptr
                                 ? write_instead(*recipe, stage)
                                 : write_itself(stage, is_last ? device_arguments : "");
      if (!written) return written;
      if (!is_last) copy(end_of(stage), stages[i + 1].whole.position);
    }
    return {};
  }

  /// A stage that is no recipe. The stacks among its arguments may hold some.
  Result<void> write_itself(const StageSyntax& stage, const std::string& more_arguments) {
    std::size_t copied = stage.whole.position;
    for (const Argument& argument : stage.arguments) {
      const StackSyntax& nested = argument.value.stack;
      if (nested.empty()) continue;
      copy(copied, nested.front().whole.position);
      Result<void> written = write_from(nested, 0, {});
      if (!written) return written;
      copied = end_of(nested.back());
    }
    const bool has_parentheses = stage.whole.length > stage.span.length;
    const std::size_t end = end_of(stage);
    if (more_arguments.empty()) {
      copy(copied, end);
    } else if (has_parentheses) {
      copy(copied, end - 1);
      write((stage.arguments.empty() ? "" : ", ") + more_arguments, stage.whole);
      copy(end - 1, end);
    } else {
      copy(copied, end);
      write("(" + more_arguments + ")", stage.whole);
    }
    return {};
  }

  Result<void> write_instead(const Recipe& recipe, const StageSyntax& stage) {
    if (!stage.arguments.empty()) {
      return problem(
          stage.whole,
          recipe.name + " is a recipe and takes no arguments; it stands for " + recipe.expansion);
    }
    if (recipe.under_environment == nullptr) {
      write(recipe.expansion, stage.whole);
      return {};
    }
    auto text = recipe.under_environment();
    if (!text) return problem(stage.span, std::move(text.error()));
    write(*text, stage.whole);
    return {};
  }

  /// A recipe that is written around the stages to its right, which then stand in it once or more.
  Result<void> write_around(const Recipe& recipe, const StackSyntax& stages, std::size_t at,
                            const std::string& device_arguments) {
    const StageSyntax& stage = stages[at];
    const StageSyntax* device = at + 1 < stages.size() ? &stages.back() : nullptr;
    Result<Around> text = recipe.around(stage, device);
    if (!text) return problem_of(text);
    write(text->before, stage.whole);
    bool is_first = true;
    for (const std::string& arguments : text->device_arguments) {
      if (!is_first) write(text->between, stage.whole);
      is_first = false;
      const bool both = !arguments.empty() && !device_arguments.empty();
      Result<void> written =
          write_from(stages, at + 1, arguments + (both ? ", " : "") + device_arguments);
      if (!written) return written;
    }
    write(text->behind, stage.whole);
    return {};
  }

  [[nodiscard]] Result<void> check(const StageSyntax& stage, const Recipe* recipe) const {
    if (recipe != nullptr && bindings_.contains(stage.name))
      return tl::unexpected(name_of_the_language(stage));
    if (expansion_.text_.size() > longest_text) {
      return problem(stage.whole, "the recipes of this text stand for more than " +
                                      std::to_string(longest_text) + " bytes");
    }
    return {};
  }

  void copy(std::size_t start, std::size_t end) {
    add(original_.substr(start, end - start), {start, end - start}, true);
  }
  void write(std::string_view text, Span recipe) { add(text, recipe, false); }
  void add(std::string_view text, Span original, bool copied) {
    if (text.empty()) return;
    expansion_.pieces_.push_back(
        {.start = expansion_.text_.size(), .original = original, .copied = copied});
    expansion_.text_ += text;
  }

  std::string_view original_;
  const Bindings& bindings_;
  Expansion expansion_;
};

Result<Expansion> expand(std::string_view text, const StackSyntax& stages,
                         const Bindings& bindings) {
  return Expander(text, bindings).run(stages);
}

}  // namespace cistern::language
