// From tree to stages: names are looked up, recipes replaced, arguments and order checked. Nothing
// is made (no file, no device) before all of the text is known to be right; `build` then makes the
// stages, the device first.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cistern/stack/stack.hpp"
#include "stack/stage_entry.hpp"

namespace cistern::language {

/// One stage of a stack that can be built: an entry of the table with its arguments, or a resource
/// of the program.
struct Link {
  const StageEntry* entry = nullptr;
  Ref<Resource> resource;  // where there is no entry
  StageSyntax syntax;
  std::optional<Span> recipe;  // where the stage comes from one: that is what a problem points at

  [[nodiscard]] Span span() const { return recipe.value_or(syntax.span); }
};

/// Outermost first; the last is a device or a resource of the program.
using Chain = std::vector<Link>;

[[nodiscard]] Result<Chain> bind(const StackSyntax& stages, const Bindings& bindings);

/// Also throws what the constructors of stages throw.
[[nodiscard]] Result<Ref<Resource>> build(const Chain& chain);

/// `text` with the recipes of `stages`, its tree, replaced.
[[nodiscard]] Result<std::string> expand(std::string_view text, const StackSyntax& stages);

}  // namespace cistern::language
