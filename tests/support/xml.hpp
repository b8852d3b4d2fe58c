// Looks at the pictures that the command draws.
#pragma once

#include <cstddef>
#include <string>

namespace cistern::testing {

/// How often `what` stands in `text`.
std::size_t count(const std::string& text, const std::string& what);

/// What is wrong with `text` as XML, of the kind that the command writes; empty if nothing is.
std::string broken_xml(const std::string& text);

}  // namespace cistern::testing
