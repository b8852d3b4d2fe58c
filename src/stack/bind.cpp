#include "stack/bind.hpp"

#include <utility>

#include "stack/parse.hpp"
#include "stack/recipes.hpp"
#include "stack/table.hpp"
#include "stack/wording.hpp"

namespace cistern::language {
namespace {

/// A problem of a stage that a recipe stands for is shown at the recipe: the text has no other
/// place for it.
tl::unexpected<Problem> problem_in(const Link& link, Problem problem) {
  if (link.recipe) problem.span = *link.recipe;
  return tl::unexpected(std::move(problem));
}

Result<std::string> expansion_of(const Recipe& recipe, const StageSyntax& stage) {
  if (!stage.arguments.empty()) {
    return problem(
        stage.whole,
        recipe.name + " is a recipe and takes no arguments; it stands for " + recipe.expansion);
  }
  if (recipe.under_environment == nullptr) return recipe.expansion;
  auto text = recipe.under_environment();
  if (!text) return problem(stage.span, std::move(text.error()));
  return std::move(*text);
}

tl::unexpected<Problem> unknown(const StageSyntax& stage, const Bindings& bindings) {
  Words names;
  for (const StageEntry& entry : stages())
    names.push_back(entry.doc.name);
  for (const Recipe& recipe : recipes())
    names.push_back(recipe.name);
  for (const auto& [name, resource] : bindings)
    names.push_back(name);
  return problem(stage.span, "there is no stage " + quoted(stage.name) + " (there are " +
                                 listed(names) + ")" + did_you_mean(stage.name, names));
}

/// The program's own resource of that name.
Result<Link> bound(const StageSyntax& stage, const Ref<Resource>& resource) {
  if (!stage.arguments.empty()) {
    return problem(stage.whole,
                   quoted(stage.name) + " is a resource of the program and takes no arguments");
  }
  if (!resource) return problem(stage.span, quoted(stage.name) + " is bound to no resource");
  return Link{.entry = nullptr, .resource = resource, .syntax = stage, .recipe = {}};
}

/// The stages that `stage` stands for: itself, unless it is a recipe.
Result<Chain> link(const StageSyntax& stage, const Bindings& bindings) {
  const StageEntry* entry = find_stage(stage.name);
  const Recipe* recipe = find_recipe(stage.name);
  const auto binding = bindings.find(stage.name);
  if (binding != bindings.end()) {
    if (entry != nullptr || recipe != nullptr) {
      return problem(stage.span,
                     quoted(stage.name) +
                         " is a name of the language and cannot name a resource of the program");
    }
    return bound(stage, binding->second).map([](Link&& link) { return Chain{std::move(link)}; });
  }
  if (entry != nullptr) {
    return Chain{{.entry = entry, .resource = {}, .syntax = stage, .recipe = {}}};
  }
  if (recipe == nullptr) return unknown(stage, bindings);

  Result<std::string> text = expansion_of(*recipe, stage);
  if (!text) return problem_of(text);
  Result<StackSyntax> expansion = parse(*text);
  if (!expansion) return problem(stage.span, std::move(expansion.error().message));
  Chain chain;
  for (StageSyntax& each : *expansion) {
    const StageEntry* of_each = find_stage(each.name);
    chain.push_back(
        {.entry = of_each, .resource = {}, .syntax = std::move(each), .recipe = stage.span});
  }
  return chain;
}

/// Every recipe of the stages and of the stacks among their arguments, in the order of the text.
std::vector<const StageSyntax*> recipes_in(const StackSyntax& stages) {
  std::vector<const StageSyntax*> found;
  for (const StageSyntax& stage : stages) {
    if (find_recipe(stage.name) != nullptr) {
      found.push_back(&stage);
      continue;
    }
    for (const Argument& argument : stage.arguments) {
      for (const StageSyntax* nested : recipes_in(argument.value.stack))
        found.push_back(nested);
    }
  }
  return found;
}

/// What may stand above what. A rule that concerns one stage belongs here too.
Result<void> check_order(const Chain& chain) {
  const auto ends_stack = [](const Link& link) {
    return link.entry == nullptr || link.entry->kind == Kind::device;
  };
  for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
    if (!ends_stack(chain[i])) continue;
    const std::string what = chain[i].entry != nullptr ? "a device" : "a resource of the program";
    return problem(chain[i].span(), quoted(chain[i].syntax.name) + " is " + what +
                                        ": it stands at the right end, with nothing below it");
  }
  if (ends_stack(chain.back())) return {};
  Words devices;
  for (const StageEntry& entry : stages()) {
    if (entry.kind == Kind::device) devices.push_back(entry.doc.name);
  }
  return problem(chain.back().span(),
                 "a stack ends in a device (" + listed(devices) +
                     ") or a resource of the program, but nothing stands below " +
                     quoted(chain.back().syntax.name));
}

}  // namespace

Result<Chain> bind(const StackSyntax& stages, const Bindings& bindings) {
  Chain chain;
  for (const StageSyntax& stage : stages) {
    Result<Chain> links = link(stage, bindings);
    if (!links) return problem_of(links);
    for (Link& each : *links)
      chain.push_back(std::move(each));
  }
  for (const Link& each : chain) {
    if (each.entry == nullptr) continue;
    Result<void> checked = each.entry->check(each.syntax);
    if (!checked) return problem_in(each, std::move(checked.error()));
  }
  Result<void> ordered = check_order(chain);
  if (!ordered) return problem_of(ordered);
  return chain;
}

Result<Ref<Resource>> build(const Chain& chain) {
  Ref<Resource> outermost;
  for (std::size_t i = chain.size(); i-- > 0;) {
    const Link& link = chain[i];
    if (link.entry == nullptr) {
      outermost = link.resource;
      continue;
    }
    Result<Ref<Resource>> stage = link.entry->build(link.syntax, std::move(outermost));
    if (!stage) return problem_in(link, std::move(stage.error()));
    outermost = std::move(*stage);
  }
  return outermost;
}

Result<std::string> expand(std::string_view text, const StackSyntax& stages) {
  std::string expanded;
  std::size_t copied = 0;
  for (const StageSyntax* stage : recipes_in(stages)) {
    Result<std::string> expansion = expansion_of(*find_recipe(stage->name), *stage);
    if (!expansion) return problem_of(expansion);
    expanded += text.substr(copied, stage->whole.position - copied);
    expanded += *expansion;
    copied = stage->whole.position + stage->whole.length;
  }
  return expanded += text.substr(copied);
}

}  // namespace cistern::language
