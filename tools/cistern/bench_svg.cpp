#include "bench_svg.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "cistern/stack/units.hpp"
#include "output.hpp"
#include "svg_text.hpp"

namespace cistern::command {
namespace {

/// One place to the right: by threads first, so that a line over all sizes can be drawn.
using Column = std::pair<std::size_t, std::optional<std::size_t>>;  // threads, bytes

class BenchPainter {
 public:
  explicit BenchPainter(std::span<const Measured> measured) : setting_(measured.front().setting) {
    for (const Measured& each : measured) {
      for (const Standing& standing : each.standings) {
        const Column column{standing.threads, each.setting.bytes};
        columns_.insert(column);
        if (!times_.contains(standing.subject)) subjects_.push_back(standing.subject);
        times_[standing.subject][column] = standing.ns_per_op;
        least_ = std::min(least_, standing.ns_per_op);
        most_ = std::max(most_, standing.ns_per_op);
      }
    }
    least_ = std::pow(10, std::floor(std::log10(least_)));
    most_ = std::max(10 * least_, std::pow(10, std::ceil(std::log10(most_))));
  }

  std::string paint() && {
    const double height = std::max(640.0, top + 24 * static_cast<double>(subjects_.size()) + 40);
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
        "font-family=\"sans-serif\" "
        "font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        right + 280, height);
    add("<text x=\"{}\" y=\"32\" font-size=\"17\">{}</text>\n", left,
        escaped(workload_name(setting_)));
    add_axes();
    for (std::size_t place = 0; place < subjects_.size(); ++place)
      add_subject(place);
    picture_ += "</svg>\n";
    return std::move(picture_);
  }

 private:
  // In pixels.
  static constexpr double left = 80;
  static constexpr double right = 960;
  static constexpr double top = 60;
  static constexpr double bottom = 560;

  template <class... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(picture_), format, std::forward<Arguments>(arguments)...);
  }

  [[nodiscard]] double x(const Column& column) const {
    const auto place = std::distance(columns_.begin(), columns_.find(column));
    return left + (static_cast<double>(place) + 0.5) * (right - left) /
                      static_cast<double>(columns_.size());
  }
  [[nodiscard]] double y(double ns) const {
    return bottom - std::log(ns / least_) / std::log(most_ / least_) * (bottom - top);
  }

  void add_axes() {
    for (double ns = least_; ns < most_ * 1.5; ns *= 10) {
      add("<path stroke=\"#ddd\" d=\"M{} {:.1f}H{}\"/><text x=\"{}\" y=\"{:.1f}\" "
          "text-anchor=\"end\">{}</text>\n",
          left, y(ns), right, left - 8, y(ns) + 4, as_time(ns));
    }
    for (const Column& column : columns_) {
      add("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(column), bottom + 20,
          column.second ? format_size(*column.second) : fmt::format("{}", column.first));
      if (column.second) {
        add("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(column),
            bottom + 36, column.first);
      }
    }
    add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", (left + right) / 2,
        bottom + 60,
        setting_.bytes ? "bytes of a block, above the number of threads" : "number of threads");
    add("<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">ns for "
        "{}</text>\n",
        (top + bottom) / 2, is_pair_timed(setting_) ? "a pair" : "an operation");
  }

  /// Its line, its dots and its name in the legend. Others' lines are dashed.
  void add_subject(std::size_t place) {
    const std::string& subject = subjects_[place];
    const std::string stroke =
        fmt::format("stroke=\"hsl({:.0f},70%,42%)\"{}",
                    360.0 * static_cast<double>(place) / static_cast<double>(subjects_.size()),
                    subject.starts_with("peer:") ? " stroke-dasharray=\"5 3\"" : "");
    std::string path;
    std::optional<std::size_t> threads;  // of the column before
    for (const auto& [column, ns] : times_[subject]) {
      const bool is_continued = threads && (!column.second || *threads == column.first);
      path += fmt::format("{}{:.1f} {:.1f}", is_continued ? 'L' : 'M', x(column), y(ns));
      threads = column.first;
    }
    add("<path fill=\"none\" stroke-width=\"1.5\" {} d=\"{}\"/>\n", stroke, path);
    for (const auto& [column, ns] : times_[subject]) {
      add("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" {}><title>{}: {}</title></circle>\n",
          x(column), y(ns), stroke, escaped(subject), as_time(ns));
    }
    const double height = top + 24 * static_cast<double>(place);
    add("<path stroke-width=\"3\" {} d=\"M{} {}h28\"/><text x=\"{}\" y=\"{}\">{}</text>\n", stroke,
        right + 16, height, right + 52, height + 4, escaped(subject));
  }

  Setting setting_;
  std::set<Column> columns_;
  std::vector<std::string> subjects_;  // in the order in which they are measured
  std::map<std::string, std::map<Column, double>> times_;
  double least_ = 1e9;
  double most_ = 1;
  std::string picture_;
};

}  // namespace

std::string bench_picture(std::span<const Measured> measured) {
  return BenchPainter(measured).paint();
}

}  // namespace cistern::command
