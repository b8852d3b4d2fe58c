#include "stack/stage_entry.hpp"

#include <algorithm>

#include "stack/wording.hpp"

namespace cistern::language {
namespace {

Words names_of(const std::vector<ParameterDoc>& parameters) {
  Words names;
  for (const ParameterDoc& parameter : parameters)
    names.push_back(parameter.name);
  return names;
}

tl::unexpected<Problem> unknown(const Argument& argument, const StageDoc& doc) {
  const Words names = names_of(doc.parameters);
  return problem(argument.key_span, doc.name + " has no parameter " + in_quotes(argument.key) +
                                        " (it has " + listed(names) + ")" +
                                        did_you_mean(argument.key, names));
}

tl::unexpected<Problem> too_many(const Argument& argument, const StageDoc& doc) {
  return problem(argument.span(), "one argument too many: " + doc.name + " takes " +
                                      listed(names_of(doc.parameters)));
}

}  // namespace

Result<Matched> match(const StageSyntax& stage, const StageDoc& doc, bool takes_rest) {
  Matched given(doc.parameters.size());
  bool named = false;
  std::size_t position = 0;
  for (const Argument& argument : stage.arguments) {
    const bool is_rest = takes_rest && argument.key.empty() && position + 1 >= given.size();
    std::size_t index = is_rest ? given.size() - 1 : position;
    if (argument.key.empty()) {
      if (named) {
        return problem(argument.span(),
                       "this needs a name: it stands behind an argument that has one");
      }
      if (index == given.size()) return too_many(argument, doc);
      ++position;
    } else {
      named = true;
      const auto found =
          std::find_if(doc.parameters.begin(), doc.parameters.end(),
                       [&](const ParameterDoc& each) { return each.name == argument.key; });
      if (found == doc.parameters.end()) return unknown(argument, doc);
      index = static_cast<std::size_t>(found - doc.parameters.begin());
    }
    if (!given[index].empty() && !is_rest) {
      return problem(argument.span(), doc.parameters[index].name + " is given twice");
    }
    given[index].push_back(&argument);
  }
  return given;
}

Problem missing(const StageSyntax& stage, const ParameterDoc& parameter) {
  return {.span = stage.whole,
          .message = stage.name + " needs " + parameter.name + " (" + parameter.type +
                     "): " + parameter.text};
}

}  // namespace cistern::language
