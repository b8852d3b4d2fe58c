#include "cistern/stack/simulated_capacity.hpp"

#include <algorithm>

#include "stack/parse.hpp"

namespace cistern {

tl::expected<std::string, StackError> with_simulated_capacity(std::string_view text,
                                                              std::size_t bytes) {
  using language::Argument;
  const auto wrong = [&](language::Span span, const std::string& message) {
    return tl::unexpected(StackError(text, span.position, span.length, message));
  };
  const auto stages = language::parse(text);
  if (!stages) return wrong(stages.error().span, stages.error().message);
  const language::StageSyntax& device = stages->back();
  if (device.name != "simulated")
    return wrong(device.span, "the capacity of a simulated device alone can be set");

  const std::string value = std::to_string(bytes);
  std::string changed(text);
  const auto& arguments = device.arguments;
  // It is the first parameter, so that it may stand without its name.
  const auto given =
      std::find_if(arguments.begin(), arguments.end(), [&](const Argument& argument) {
        return argument.key == "capacity" ||
               (argument.key.empty() && &argument == arguments.data());
      });
  if (given != arguments.end())
    return changed.replace(given->value.span.position, given->value.span.length, value);
  if (!arguments.empty())
    return changed.insert(arguments.front().span().position, "capacity=" + value + ", ");
  return changed.replace(device.whole.position, device.whole.length,
                         "simulated(capacity=" + value + ")");
}

}  // namespace cistern
