// Whole files to and from memory, with errors that say what the system said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"

namespace cistern::detail {

/// Reads all of `path`, or of standard input for "-".
tl::expected<std::string, TraceError> read_file(const std::filesystem::path& path,
                                                std::uint64_t max_bytes);

/// Writes all of `path`, or to standard output for "-". A regular file is replaced in one step,
/// once the new one is complete; pipes and devices are written to directly.
tl::expected<void, TraceError> write_file(const std::filesystem::path& path,
                                          std::string_view bytes);

}  // namespace cistern::detail
