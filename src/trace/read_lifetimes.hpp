// The reader of tables of lifetimes, beside those of traces (readers.hpp).
#pragma once

#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/lifetimes.hpp"

namespace cistern::detail {

/// Whether the first line names a column that no trace has; the reader says what else is wrong.
bool looks_like_lifetimes(std::string_view bytes);

/// Reads uncompressed contents, trusting nothing in them; `name` is for the caller to set. Every
/// `upper` is at least its `lower`, every alignment a power of two and every id there once.
tl::expected<Lifetimes, TraceError> read_lifetimes(std::string_view csv);

}  // namespace cistern::detail
