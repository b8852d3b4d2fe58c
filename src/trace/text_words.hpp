// The words of the text form, which its writer and its reader must agree on.
#pragma once

#include <array>
#include <string_view>

namespace cistern::detail {

inline constexpr std::string_view initial_word = "initial";
inline constexpr std::string_view end_word = "end";
inline constexpr std::array<std::string_view, 4> operation_words{"allocate", "free", "reset",
                                                                 "cycle"};  // from 1

inline constexpr std::string_view initial_columns = "initial id bytes alignment stream";
inline constexpr std::string_view event_columns =
    "operation sequence time_ns thread id bytes alignment stream";

}  // namespace cistern::detail
