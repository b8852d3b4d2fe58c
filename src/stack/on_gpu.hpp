// A text for each of several GPUs, from one that names none: who asks for memory by the number of
// the GPU, as PyTorch does, has one text for all of them.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/stack/stack.hpp"

namespace cistern::language {

/// `text` with its recipes replaced, and every device `cuda` of it that names no GPU on this one.
/// The error is that of `check`.
[[nodiscard]] tl::expected<std::string, StackError> on_gpu(std::string_view text, unsigned gpu);

}  // namespace cistern::language
