// Catches what the library reports while it lives.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cistern/core/report.hpp"

namespace cistern::testing {

class CaughtReports {
 public:
  CaughtReports() {
    lines().clear();
    former_ = set_report_sink([](std::string_view line) noexcept {
      const std::lock_guard lock(mutex());
      lines().emplace_back(line);
    });
  }
  CaughtReports(const CaughtReports&) = delete;
  CaughtReports& operator=(const CaughtReports&) = delete;
  CaughtReports(CaughtReports&&) = delete;
  CaughtReports& operator=(CaughtReports&&) = delete;
  ~CaughtReports() { set_report_sink(former_); }

  [[nodiscard]] static std::vector<std::string> all() {
    const std::lock_guard lock(mutex());
    return lines();
  }

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::vector<std::string>& lines() {
    static std::vector<std::string> lines;
    return lines;
  }

  ReportSink former_;
};

}  // namespace cistern::testing
