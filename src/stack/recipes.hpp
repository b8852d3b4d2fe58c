// Recipes: names for the stages that behave as another system does. A recipe is a macro: its text
// replaces its name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

namespace cistern::language {

struct Recipe {
  std::string name;
  std::string text;       // whose behaviour it is, and what of the environment it heeds
  std::string expansion;  // holds no recipe
  // The expansion under the environment variables of now, or what is wrong with one; null where
  // none is heeded.
  tl::expected<std::string, std::string> (*under_environment)() = nullptr;
};

const std::vector<Recipe>& recipes();

/// The recipe of that name, or null.
const Recipe* find_recipe(std::string_view name);

}  // namespace cistern::language
