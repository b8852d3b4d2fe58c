// From tree to stages: names are looked up, arguments and order checked. Nothing is made (no file,
// no device) before all of the text is known to be right; `build` then makes the stages, the device
// first. Recipes have been replaced before.
#pragma once

#include <vector>

#include "cistern/stack/stack.hpp"
#include "stack/stage_entry.hpp"
#include "stack/table.hpp"

namespace cistern::language {

/// One stage of a stack that can be built: an entry of the table with its arguments, or a resource
/// of the program.
struct Link {
  const StageEntry* entry = nullptr;
  Ref<Resource> resource;  // where there is no entry
  StageSyntax syntax;
};

/// Outermost first; the last is one that nothing stands below.
using Chain = std::vector<Link>;

[[nodiscard]] Result<Chain> bind(const StackSyntax& stages, const Bindings& bindings);

/// Also throws what the constructors of stages throw: `DeviceAbsent` is one of that.
[[nodiscard]] Result<Ref<Resource>> build(const Chain& chain, const Bindings& bindings);

/// What is wrong with a resource of the program that has the name of this stage or recipe.
[[nodiscard]] Problem name_of_the_language(const StageSyntax& stage);

/// Takes back at once what it has handed out (`reset`), so that no stage above may hand it on.
[[nodiscard]] bool is_outermost(const Link& link);
[[nodiscard]] Problem not_outermost(const StageSyntax& stage, const std::string& above);

/// What is wrong with a stage that something must stand below, but nothing does.
[[nodiscard]] Problem nothing_below(const StageSyntax& stage);

}  // namespace cistern::language
