// How messages speak: what is quoted, how alternatives are listed, and what was probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cistern::language {

using Words = std::vector<std::string_view>;

/// `text` as a line of visible ASCII, byte for byte: control characters become spaces, all else
/// dots. A caret below it stands where it should whatever a terminal makes of the original.
std::string visible(std::string_view text);

/// 'text', visible and cut where it is long.
std::string in_quotes(std::string_view text);

/// '/', or "byte 0xC3" for what cannot be shown.
std::string character(char c);

/// "a, b, c".
std::string listed(const Words& words);

/// "; did you mean 'evict'?", or nothing if no candidate is within two edits of `word`.
std::string did_you_mean(std::string_view word, const Words& candidates);

}  // namespace cistern::language
