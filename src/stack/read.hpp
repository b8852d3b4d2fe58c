// A text, all the way to the stages that can be made of it: parsed, its recipes replaced, checked.
#pragma once

#include <string_view>

#include "cistern/stack/stack.hpp"
#include "stack/bind.hpp"
#include "stack/expand.hpp"

namespace cistern::language {

/// A text that is right.
struct ReadText {
  Expansion expansion;
  Chain chain;  // its spans are places in the expansion

  /// Makes the stack. Problems lie in the original text. Also throws what the constructors of
  /// stages throw.
  [[nodiscard]] Result<Ref<Resource>> open(const Bindings& bindings) const;
};

/// Problems lie in `text`, whatever recipes it holds.
[[nodiscard]] Result<ReadText> read(std::string_view text, const Bindings& bindings);

}  // namespace cistern::language
