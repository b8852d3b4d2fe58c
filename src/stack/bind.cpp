#include "stack/bind.hpp"

#include <utility>

#include "stack/recipes.hpp"
#include "stack/table.hpp"
#include "stack/wording.hpp"

namespace cistern::language {
namespace {

tl::unexpected<Problem> unknown(const StageSyntax& stage, const Bindings& bindings) {
  Words names;
  for (const StageEntry& entry : stages())
    names.push_back(entry.doc.name);
  for (const Recipe& recipe : recipes())
    names.push_back(recipe.name);
  for (const auto& [name, resource] : bindings)
    names.push_back(name);
  return problem(stage.span, "there is no stage " + in_quotes(stage.name) + " (there are " +
                                 listed(names) + ")" + did_you_mean(stage.name, names));
}

/// The program's own resource of that name.
Result<Link> bound(const StageSyntax& stage, const Ref<Resource>& resource) {
  if (!stage.arguments.empty()) {
    return problem(stage.whole,
                   in_quotes(stage.name) + " is a resource of the program and takes no arguments");
  }
  if (!resource) return problem(stage.span, in_quotes(stage.name) + " is bound to no resource");
  return Link{.entry = nullptr, .resource = resource, .syntax = stage};
}

Result<Link> link(const StageSyntax& stage, const Bindings& bindings) {
  const StageEntry* entry = find_stage(stage.name);
  const auto binding = bindings.find(stage.name);
  if (binding != bindings.end()) {
    if (entry == nullptr) return bound(stage, binding->second);
    return tl::unexpected(name_of_the_language(stage));
  }
  if (entry == nullptr) return unknown(stage, bindings);
  Result<void> checked = entry->check(stage, bindings);
  if (!checked) return problem_of(checked);
  return Link{.entry = entry, .resource = {}, .syntax = stage};
}

bool ends_stack(const Link& link) {
  return link.entry == nullptr || link.entry->ends_stack();
}

std::string what_is(const Link& link) {
  if (link.resource) return "a resource of the program";
  const bool is_choice = link.entry != nullptr && link.entry->kind == Kind::choice;
  return is_choice ? "a choice of stacks" : "a device";
}

Words names_of(Kind kind) {
  Words names;
  for (const StageEntry& entry : stages()) {
    if (entry.kind == kind) names.push_back(entry.doc.name);
  }
  return names;
}

/// What may stand above what. A rule that concerns one stage belongs here too.
Result<void> check_order(const Chain& chain) {
  for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
    if (!ends_stack(chain[i])) continue;
    return problem(chain[i].syntax.span, in_quotes(chain[i].syntax.name) + " is " +
                                             what_is(chain[i]) +
                                             ": it stands at the right end, with nothing below it");
  }
  for (std::size_t i = 1; i < chain.size(); ++i) {
    const std::string& above = chain[i - 1].syntax.name;
    if (!is_outermost(chain[i]) || above == "trace") continue;
    return tl::unexpected(not_outermost(chain[i].syntax, in_quotes(above)));
  }
  if (ends_stack(chain.back())) return {};
  return tl::unexpected(nothing_below(chain.back().syntax));
}

}  // namespace

bool is_outermost(const Link& link) {
  return link.entry != nullptr && (link.syntax.name == "arena" || link.syntax.name == "planned");
}

Problem name_of_the_language(const StageSyntax& stage) {
  return {.span = stage.span,
          .message = in_quotes(stage.name) +
                     " is a name of the language and cannot name a resource of the program"};
}

Problem not_outermost(const StageSyntax& stage, const std::string& above) {
  return {.span = stage.span,
          .message = in_quotes(stage.name) + " takes back at once what it has handed out, which " +
                     above +
                     " would not know of: it is the outermost stage, or stands under 'trace'"};
}

Problem nothing_below(const StageSyntax& stage) {
  return {.span = stage.span,
          .message = "a stack ends in a device (" + listed(names_of(Kind::device)) +
                     "), a choice of stacks (" + listed(names_of(Kind::choice)) +
                     ") or a resource of the program, but nothing stands below " +
                     in_quotes(stage.name)};
}

Result<Chain> bind(const StackSyntax& stages, const Bindings& bindings) {
  Chain chain;
  for (const StageSyntax& stage : stages) {
    if (find_recipe(stage.name) != nullptr)  // a mere word among the arguments of a stage
      return tl::unexpected(nothing_below(stage));
    Result<Link> next = link(stage, bindings);
    if (!next) return problem_of(next);
    chain.push_back(std::move(*next));
  }
  Result<void> ordered = check_order(chain);
  if (!ordered) return problem_of(ordered);
  return chain;
}

Result<Ref<Resource>> build(const Chain& chain, const Bindings& bindings) {
  Ref<Resource> outermost;
  for (std::size_t i = chain.size(); i-- > 0;) {
    const Link& link = chain[i];
    if (link.entry == nullptr) {
      outermost = link.resource;
      continue;
    }
    Result<Ref<Resource>> stage = link.entry->build(link.syntax, std::move(outermost), bindings);
    if (!stage) return stage;
    outermost = std::move(*stage);
  }
  return outermost;
}

}  // namespace cistern::language
