// Where the library says what nobody asked about: a stack closed with blocks still out, a free that
// was refused. One line each, to standard error unless the program sets a sink of its own.
#pragma once

#include <string_view>

namespace cistern {

/// Called with one line without its end, on the thread where it happened and outside every lock of
/// the library. It must not throw.
using ReportSink = void (*)(std::string_view line) noexcept;

/// Replaces the sink for the whole process and returns the former one; null puts standard error
/// back. Thread-safe.
ReportSink set_report_sink(ReportSink sink) noexcept;

/// Sends one line of at most 255 characters, made as by printf. Allocates nothing.
[[gnu::format(printf, 1, 2)]] void report(const char* format, ...) noexcept;

}  // namespace cistern
