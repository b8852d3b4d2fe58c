#include "stack/nested_stack.hpp"

#include <string>
#include <utility>

namespace cistern::language {
namespace {

void add_used(const StackSyntax& stages, const Bindings& bindings, Bindings& used);

void add_used(const std::string& name, const Bindings& bindings, Bindings& used) {
  const auto found = bindings.find(name);
  if (found != bindings.end()) used.insert(*found);
}

void add_used(const Value& value, const Bindings& bindings, Bindings& used) {
  add_used(value.text, bindings, used);
  add_used(value.stack, bindings, used);
}

void add_used(const StackSyntax& stages, const Bindings& bindings, Bindings& used) {
  for (const StageSyntax& stage : stages) {
    add_used(stage.name, bindings, used);
    for (const Argument& argument : stage.arguments)
      add_used(argument.value, bindings, used);
  }
}

}  // namespace

Type<NestedStack> stack() {
  return {.name = "stack",
          .bounds = "",
          .read = [](const Value& value, const Context& context) -> Result<NestedStack> {
            StackSyntax stages = value.stack;
            if (value.form == Value::Form::word) {
              stages.push_back(
                  {.name = value.text, .span = value.span, .whole = value.span, .arguments = {}});
            } else if (value.form != Value::Form::stack) {
              return not_a(value, "stack", "host or cache > host");
            }
            NestedStack nested;
            Result<Chain> chain = language::bind(stages, *context.bindings);
            if (!chain) return problem_of(chain);
            for (const Link& link : *chain) {
              if (is_outermost(link))
                return tl::unexpected(not_outermost(link.syntax, "the stage around it"));
            }
            nested.chain = std::move(*chain);
            add_used(stages, *context.bindings, nested.bindings);
            return nested;
          },
          .write = [](const NestedStack&) { return std::string(); },
          .problems_name_parameter = false};
}

}  // namespace cistern::language
