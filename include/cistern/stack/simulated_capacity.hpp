// The same stack on simulated devices of different sizes: for whoever looks for the smallest that
// will do.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/stack/stack.hpp"

namespace cistern {

/// `text` with the capacity of its simulated device set to `bytes`, all else as it stands;
/// percentages of the device's memory so follow. Error: the text breaks the grammar, or does not
/// end in `simulated`.
[[nodiscard]] tl::expected<std::string, StackError> with_simulated_capacity(std::string_view text,
                                                                            std::size_t bytes);

}  // namespace cistern
