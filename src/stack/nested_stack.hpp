// A stack as the value of a parameter: checked when the text is, made when the stage is, or later.
#pragma once

#include "cistern/stack/stack.hpp"
#include "stack/bind.hpp"
#include "stack/value_type.hpp"

namespace cistern::language {

struct NestedStack {
  Chain chain;
  Bindings bindings;  // those of its names

  /// Makes it. Also throws what the constructors of stages throw.
  [[nodiscard]] Result<Ref<Resource>> open() const { return build(chain, bindings); }
};

/// A stack that can be made, or a name.
Type<NestedStack> stack();

}  // namespace cistern::language
