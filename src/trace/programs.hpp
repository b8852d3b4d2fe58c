// The programs that can be generated, one file each. Their options were checked.
#pragma once

#include "cistern/trace/generate.hpp"
#include "trace/script.hpp"

namespace cistern::detail {

void write_pipeline(const GenerateOptions& options, Script& script);
void write_prefetch(const GenerateOptions& options, Script& script);
void write_side(const GenerateOptions& options, Script& script);

/// The stream of the n-th thing that is done beside stream 0: all others in turn, or 0 where there
/// is no other.
[[nodiscard]] constexpr std::uint64_t stream_beside(std::uint64_t n,
                                                    std::uint64_t streams) noexcept {
  return streams == 1 ? 0 : 1 + n % (streams - 1);
}

}  // namespace cistern::detail
