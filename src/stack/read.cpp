#include "stack/read.hpp"

#include <utility>

#include "stack/parse.hpp"

namespace cistern::language {
namespace {

template <class T>
tl::unexpected<Problem> in_original(const Expansion& expansion, Result<T>& result) {
  result.error().span = expansion.in_original(result.error().span);
  return problem_of(result);
}

}  // namespace

Result<ReadText> read(std::string_view text, const Bindings& bindings) {
  Result<StackSyntax> written = parse(text);
  if (!written) return problem_of(written);
  Result<Expansion> expansion = expand(text, *written, bindings);
  if (!expansion) return problem_of(expansion);
  Result<Chain> chain = language::bind(expansion->stages(), bindings);
  if (!chain) return in_original(*expansion, chain);
  return ReadText{.expansion = std::move(*expansion), .chain = std::move(*chain)};
}

Result<Ref<Resource>> ReadText::open(const Bindings& bindings) const {
  Result<Ref<Resource>> resource = build(chain, bindings);
  if (!resource) return in_original(expansion, resource);
  return resource;
}

}  // namespace cistern::language
