#include "cistern/core/report.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdarg>
#include <cstddef>
#include <cstdio>

namespace cistern {
namespace {

void to_standard_error(std::string_view line) noexcept {
  std::fprintf(stderr, "cistern: %.*s\n", static_cast<int>(line.size()), line.data());
}

std::atomic<ReportSink> current_sink{&to_standard_error};

}  // namespace

ReportSink set_report_sink(ReportSink sink) noexcept {
  return current_sink.exchange(sink == nullptr ? &to_standard_error : sink);
}

void report(const char* format, ...) noexcept {
  std::array<char, 256> line{};
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  va_end(arguments);
  if (length <= 0) return;
  current_sink.load()({line.data(), std::min(line.size() - 1, static_cast<std::size_t>(length))});
}

}  // namespace cistern
