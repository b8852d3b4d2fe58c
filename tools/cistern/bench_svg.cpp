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
    std::size_t longest = 30;  // name in the legend
    for (const std::string& subject : subjects_)
      longest = std::max(longest, subject.size());
    constexpr double character = 7;
    const double width = right + 70 + character * static_cast<double>(longest);
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
        "font-family=\"sans-serif\" "
        "font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        width, height);
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

  /// The middle of one of `count` parts of the width.
  static double middle(double part, std::size_t count) {
    return left + (part + 0.5) * (right - left) / static_cast<double>(count);
  }
  [[nodiscard]] double x(const Column& column) const {
    const auto place = std::distance(columns_.begin(), columns_.find(column));
    return middle(static_cast<double>(place), columns_.size());
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
    add("<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">time of "
        "{}</text>\n",
        (top + bottom) / 2, is_pair_timed(setting_) ? "a pair" : "an operation");
  }

  /// Others' dots are hollow.
  void add_dot(double across, double ns, const std::string& subject, const std::string& colour) {
    add("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" stroke-width=\"1.5\" stroke=\"{}\" "
        "fill=\"{}\"><title>{}: {}</title></circle>\n",
        across, y(ns), colour, subject.starts_with("peer:") ? "#fff" : colour, escaped(subject),
        as_time(ns));
  }

  void add_line(const std::string& subject, const std::string& colour, const std::string& stroke) {
    std::string path;
    std::optional<std::size_t> threads;  // of the column before
    for (const auto& [column, ns] : times_[subject]) {
      const bool is_continued = threads && (!column.second || *threads == column.first);
      path += fmt::format("{}{:.1f} {:.1f}", is_continued ? 'L' : 'M', x(column), y(ns));
      threads = column.first;
    }
    add("<path fill=\"none\" stroke-width=\"1.5\" {} d=\"{}\"/>\n", stroke, path);
    for (const auto& [column, ns] : times_[subject])
      add_dot(x(column), ns, subject, colour);
  }

  /// Its line, its dots and its name in the legend. Others' lines are dashed.
  void add_subject(std::size_t place) {
    const std::string& subject = subjects_[place];
    constexpr double golden_angle = 137.5;  // however many there are, neighbours look different
    const std::string colour = fmt::format(
        "hsl({:.0f},70%,42%)", std::fmod(golden_angle * static_cast<double>(place), 360));
    const std::string stroke = fmt::format(
        "stroke=\"{}\"{}", colour, subject.starts_with("peer:") ? " stroke-dasharray=\"5 3\"" : "");
    if (columns_.size() == 1) {  // side by side: dots upon each other cannot be told apart
      const double ns = times_[subject].begin()->second;
      const double here = middle(static_cast<double>(place), subjects_.size());
      add_dot(here, ns, subject, colour);
      add("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"10\" text-anchor=\"middle\">{}</text>\n",
          here, y(ns) - 8, as_time(ns));
    } else {
      add_line(subject, colour, stroke);
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
