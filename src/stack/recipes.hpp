// Recipes: names for stages that are often wanted together, or that behave as another system does.
// A recipe is a macro: its text replaces its name, or is written around the stages to its right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/stack/stages.hpp"
#include "stack/syntax.hpp"

namespace cistern::language {

/// What is written around the stages to the right of a recipe.
struct Around {
  std::string before;
  std::string between;  // two copies of those stages
  std::string behind;
  std::vector<std::string> device_arguments;  // one text for each copy: what its device is given
};

struct Recipe {
  std::string name;
  std::string text;       // whose behaviour it is, and what of the environment it heeds
  std::string expansion;  // holds no recipe; of one that stands around others, for people
  // The expansion under the environment variables of now, or what is wrong with one; null where
  // none is heeded.
  tl::expected<std::string, std::string> (*under_environment)() = nullptr;

  // Where it is written around the stages to its right, the last of which is `device`, or null if
  // there are none; null for other recipes. Only such a recipe has parameters.
  Result<Around> (*around)(const StageSyntax& recipe, const StageSyntax* device) = nullptr;
  std::vector<ParameterDoc> parameters = {};
};

const std::vector<Recipe>& recipes();

/// The recipe of that name, or null.
const Recipe* find_recipe(std::string_view name);

}  // namespace cistern::language
