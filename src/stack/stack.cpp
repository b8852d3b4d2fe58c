#include "cistern/stack/stack.hpp"

#include <cstdlib>
#include <utility>

#include "cistern/adaptor/recorder.hpp"
#include "stack/default_stack.hpp"
#include "stack/expand.hpp"
#include "stack/parse.hpp"
#include "stack/read.hpp"
#include "stack/recipes.hpp"
#include "stack/table.hpp"

namespace cistern {
namespace {

template <class T>
tl::expected<T, StackError> at_the_edge(std::string_view text, language::Result<T>&& result) {
  return std::move(result).map_error([&](language::Problem&& problem) {
    return StackError(text, problem.span.position, problem.span.length, problem.message);
  });
}

language::Result<Ref<Resource>> open_resource(std::string_view text, const Bindings& bindings) {
  language::Result<language::ReadText> right = language::read(text, bindings);
  if (!right) return problem_of(right);
  return right->open(bindings);
}

}  // namespace

std::vector<Buffer> Stack::buffers(std::span<const Request> requests) const {
  std::vector<Buffer> buffers;
  buffers.reserve(requests.size());
  const std::vector<Block> blocks = outermost_->allocate_held_batch(requests);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    buffers.emplace_back(*outermost_, blocks[i], requests[i].stream);
  return buffers;
}

Outstanding Stack::close() noexcept {
  const Ref<Resource> closing = std::exchange(outermost_, {});
  return closing ? closing->outstanding() : Outstanding{};
}

tl::expected<Stack, StackError> try_open(std::string_view text, const Bindings& bindings) {
  return at_the_edge(text, open_resource(text, bindings)).map([&](Ref<Resource>&& outermost) {
    return Stack(std::move(outermost), std::string(text));
  });
}

Stack open(std::string_view text, const Bindings& bindings) {
  tl::expected<Stack, StackError> stack = try_open(text, bindings);
  if (!stack) throw StackError(std::move(stack.error()));
  return std::move(*stack);
}

tl::expected<void, StackError> check(std::string_view text, const Bindings& bindings) {
  return at_the_edge(text, language::read(text, bindings)).map([](const language::ReadText&) {});
}

tl::expected<std::string, StackError> expand(std::string_view text) {
  language::Result<language::StackSyntax> stages = language::parse(text);
  if (!stages) return at_the_edge(text, language::Result<std::string>(problem_of(stages)));
  return at_the_edge(text, language::expand(text, *stages, {}))
      .map([](const language::Expansion& expansion) { return expansion.text(); });
}

std::vector<StageDoc> stage_docs() {
  std::vector<StageDoc> docs;
  for (const language::StageEntry& entry : language::stages())
    docs.push_back(entry.doc);
  for (const language::Recipe& recipe : language::recipes()) {
    docs.push_back({.name = recipe.name,
                    .kind = "recipe",
                    .text = recipe.text,
                    .parameters = recipe.parameters,
                    .expansion = recipe.expansion});
  }
  return docs;
}

std::string language::text_of_environment(std::string_view otherwise) {
  const char* const text = std::getenv(default_variable);  // NOLINT(concurrency-mt-unsafe)
  return std::string(text == nullptr || *text == '\0' ? otherwise : text);
}

StackError language::in_environment(std::string_view text, const StackError& error) {
  return {text, error.position(), error.length(),
          std::string("in the environment variable ") + default_variable + ": " + error.message()};
}

void language::finish_recordings(Resource& stage) {
  if (auto* recorder = dynamic_cast<Recorder*>(&stage)) recorder->finish();
  stage.each_upstream(finish_recordings);
}

Stack language::open_default() {
  const std::string text = text_of_environment(default_text);
  tl::expected<Stack, StackError> stack = try_open(text);
  if (!stack) throw in_environment(text, stack.error());
  return std::move(*stack);
}

Resource& default_resource() {
  static const Stack* const stack = [] {
    const auto* const opened = new Stack(language::open_default());
    std::atexit([] { language::finish_recordings(default_resource()); });
    return opened;
  }();
  return **stack;
}

}  // namespace cistern
