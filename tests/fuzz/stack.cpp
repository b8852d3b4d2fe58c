// Any bytes as the text of a stack: parsed, bound, expanded and complained about, but never opened,
// since a `trace` would create files.
#include "cistern/stack/stack.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "stack/parse.hpp"
#include "stack/read.hpp"

namespace {

void show(std::string_view text, const cistern::language::Problem& problem) {
  const auto [position, length] = problem.span;
  if (position > text.size() || length > text.size() - position) std::abort();
  const cistern::StackError error(text, position, length, problem.message);
  if (std::string_view(error.what()).size() > 2000) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto right = cistern::language::read(text, {});
  if (!right) show(text, right.error());

  const auto expanded = cistern::expand(text);
  if (!expanded || expanded->size() > cistern::language::longest_text) return 0;
  const auto again = cistern::expand(*expanded);
  if (!again || *again != *expanded) std::abort();
  return 0;
}
