// Recipes replaced by what they stand for, before anything else looks at a text: the stages that
// `bind` sees are those that `cistern::expand` prints. Places in the text that results are led back
// to those in the text that was written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cistern/stack/stack.hpp"
#include "stack/syntax.hpp"

namespace cistern::language {

class Expansion {
 public:
  /// Where `text` is without recipes, this is the text.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

  /// The tree of `text()`.
  [[nodiscard]] const StackSyntax& stages() const noexcept { return stages_; }

  /// The place in the original of a place in `text()`; what a recipe stands for lies at the recipe.
  [[nodiscard]] Span in_original(Span span) const;

 private:
  friend class Expander;

  // A stretch of the text: copied from the original, or all at one place of it.
  struct Piece {
    std::size_t start = 0;
    Span original;
    bool copied = false;
  };

  [[nodiscard]] const Piece& piece_at(std::size_t position) const;

  std::string text_;
  StackSyntax stages_;
  std::vector<Piece> pieces_;
};

/// `text` with the recipes of `stages`, its tree, replaced. Recipes are names of the language: none
/// of those used may be among `bindings`. The result is a text within the bounds of one. O(its
/// length).
[[nodiscard]] Result<Expansion> expand(std::string_view text, const StackSyntax& stages,
                                       const Bindings& bindings);

}  // namespace cistern::language
