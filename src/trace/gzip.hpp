// Compression to and from gzip, in memory. zlib does the work; this adds what its file functions
// leave to the caller: a stream that stops early is an error, and so is one that grows beyond a
// bound.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"

namespace cistern::detail {

bool is_gzip(std::string_view bytes);

/// Decompresses all members of a gzip file. Errors name the byte of the compressed file.
tl::expected<std::string, TraceError> inflate_gzip(std::string_view bytes, std::uint64_t max_bytes);

tl::expected<std::string, TraceError> deflate_gzip(std::string_view bytes);

}  // namespace cistern::detail
