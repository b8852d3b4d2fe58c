#include "plan_picture.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cistern/stack/units.hpp"
#include "output.hpp"
#include "svg_text.hpp"

namespace cistern::command {
namespace {

// All in pixels.
constexpr double picture_width = 1280;
constexpr double picture_height = 760;
constexpr double plot_left = 84;
constexpr double plot_right = picture_width - 132;
constexpr double plot_top = 72;
constexpr double plot_bottom = picture_height - 52;

// From small buffers to large ones: the colours of viridis (van der Walt, Smith), which stay apart
// in print and for the colour-blind.
struct Shade {
  const char* fill;
  const char* ink;  // of text upon it
};
constexpr std::array<Shade, 8> shades{{{"#fde725", "#000"},
                                       {"#a0da39", "#000"},
                                       {"#4ac16d", "#000"},
                                       {"#1fa187", "#000"},
                                       {"#277f8e", "#fff"},
                                       {"#365c8d", "#fff"},
                                       {"#46327e", "#fff"},
                                       {"#440154", "#fff"}}};

/// The multiples of `step` from `from` to `to`.
std::vector<std::uint64_t> multiples(std::uint64_t step, std::uint64_t from, std::uint64_t to) {
  std::vector<std::uint64_t> found;
  std::uint64_t next = from / step * step;
  if (next < from) next += std::min(step, std::numeric_limits<std::uint64_t>::max() - next);
  for (; next >= from && next <= to; next += step) {
    found.push_back(next);
    if (step > std::numeric_limits<std::uint64_t>::max() - next) break;
  }
  return found;
}

/// 1, 2 or 5 times a power of ten that goes into `span` eight times or less.
std::uint64_t decimal_step(std::uint64_t span) {
  std::uint64_t step = 1;
  for (std::size_t turn = 0; step < span / 8 + (span % 8 == 0 ? 0 : 1); ++turn)
    step = turn % 3 == 1 ? step / 2 * 5 : step * 2;
  return step;
}

class Painter {
 public:
  Painter(const Lifetimes& lifetimes, const Plan& plan) : lifetimes_(lifetimes), plan_(plan) {
    for (const Lifetime& buffer : lifetimes.buffers) {
      if (is_empty(buffer)) continue;
      from_ = std::min(from_, buffer.lower);
      to_ = std::max(to_, buffer.upper);
      most_ = std::max(most_, buffer.bytes);
    }
    if (from_ > to_) from_ = to_ = 0;
  }

  std::string paint() && {
    open();
    add_grid();
    for (std::size_t place = 0; place < lifetimes_.buffers.size(); ++place)
      add_buffer(place);
    add_levels();
    add_legend();
    svg_ += "</svg>\n";
    return std::move(svg_);
  }

 private:
  static bool is_empty(const Lifetime& buffer) {
    return buffer.bytes == 0 || buffer.lower == buffer.upper;
  }

  static std::size_t bits(std::size_t bytes) {
    return static_cast<std::size_t>(std::bit_width(bytes));
  }

  template <class... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(svg_), format, std::forward<Arguments>(arguments)...);
  }

  [[nodiscard]] double x(std::uint64_t time) const {
    const auto span = static_cast<double>(std::max<std::uint64_t>(to_ - from_, 1));
    return plot_left + static_cast<double>(time - from_) / span * (plot_right - plot_left);
  }

  [[nodiscard]] double y(std::size_t offset) const {
    const auto peak = static_cast<double>(std::max<std::size_t>(plan_.peak_bytes, 1));
    return plot_bottom - static_cast<double>(offset) / peak * (plot_bottom - plot_top);
  }

  /// The last is for the largest sizes; from one to the next they grow fourfold.
  [[nodiscard]] std::size_t shade(std::size_t bytes) const {
    const std::size_t steps = (bits(most_) - bits(bytes)) / 2;
    return shades.size() - 1 - std::min(steps, shades.size() - 1);
  }

  /// The smallest size of a shade; the first has all that is smaller, too.
  [[nodiscard]] std::size_t least_of(std::size_t shade) const {
    const std::size_t below = 2 * (shades.size() - 1 - shade) + 2;
    return shade == 0 || bits(most_) <= below ? 1 : std::size_t{1} << (bits(most_) - below);
  }

  void open() {
    const double ratio =
        plan_.lower_bound_bytes == 0
            ? 1
            : static_cast<double>(plan_.peak_bytes) / static_cast<double>(plan_.lower_bound_bytes);
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
        "font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<style>\n"
        ".b{{stroke:#fff;stroke-width:{};stroke-opacity:.7}}\n"
        ".b:hover{{stroke:#d00;stroke-width:2;stroke-opacity:1}}\n"
        ".g{{stroke:#ddd}}\n.l{{stroke:#d00;fill:none}}\n.n{{font-size:10px;text-anchor:middle;"
        "pointer-events:none}}\n",
        picture_width, picture_height, lifetimes_.buffers.size() > 2000 ? 0.1 : 0.6);
    for (std::size_t each = 0; each < shades.size(); ++each)
      add(".s{0}{{fill:{1}}}\n.i{0}{{fill:{2}}}\n", each, shades[each].fill, shades[each].ink);
    add("</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        "<text x=\"{}\" y=\"26\" font-size=\"17\">{}</text>\n"
        "<text x=\"{}\" y=\"46\">{}, peak {}, lower bound {}: {:.4f} times the bound{}</text>\n",
        plot_left, escaped(lifetimes_.name), plot_left,
        counted(lifetimes_.buffers.size(), "buffer"), in_units(plan_.peak_bytes),
        in_units(plan_.lower_bound_bytes), ratio, plan_.proved_optimal ? ", proved optimal" : "");
  }

  void add_grid() {
    const std::size_t byte_step = std::bit_ceil(std::max<std::size_t>(plan_.peak_bytes / 8, 1));
    for (const std::uint64_t bytes : multiples(byte_step, 0, plan_.peak_bytes)) {
      add("<path class=\"g\" d=\"M{} {:.2f}H{}\"/><text x=\"{}\" y=\"{:.2f}\" "
          "text-anchor=\"end\">{}</text>\n",
          plot_left - 5, y(bytes), plot_right, plot_left - 9, y(bytes) + 4, format_size(bytes));
    }
    for (const std::uint64_t time : multiples(decimal_step(to_ - from_), from_, to_)) {
      add("<path class=\"g\" d=\"M{0:.2f} {1}V{2}\"/><text x=\"{0:.2f}\" y=\"{3}\" "
          "text-anchor=\"middle\">{4}</text>\n",
          x(time), plot_top, plot_bottom + 5, plot_bottom + 19, with_commas(time));
    }
    add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", (plot_left + plot_right) / 2,
        picture_height - 12, lifetimes_.source == "lifetimes-csv" ? "time" : "time, in events");
    add("<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">offset, in "
        "bytes</text>\n",
        (plot_top + plot_bottom) / 2);
  }

  void add_buffer(std::size_t place) {
    const Lifetime& buffer = lifetimes_.buffers[place];
    if (is_empty(buffer)) return;
    const std::size_t offset = plan_.offsets[place];
    // What is thinner would vanish.
    const double wide = std::max(x(buffer.upper) - x(buffer.lower), 0.3);
    const double high = std::max(y(offset) - y(offset + buffer.bytes), 0.3);
    const double above = y(offset) - high;
    const std::string id = escaped(lifetimes_.ids[place]);
    add("<rect class=\"b s{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\">"
        "<title>{}: {} bytes at {}, from {} to {}</title></rect>\n",
        shade(buffer.bytes), x(buffer.lower), above, wide, high, id, with_commas(buffer.bytes),
        with_commas(offset), with_commas(buffer.lower), with_commas(buffer.upper));
    const double text_width = 6.5 * static_cast<double>(lifetimes_.ids[place].size()) + 4;
    if (high >= 12 && wide >= text_width) {
      add("<text class=\"n i{}\" x=\"{:.2f}\" y=\"{:.2f}\">{}</text>\n", shade(buffer.bytes),
          x(buffer.lower) + wide / 2, above + high / 2 + 3.5, id);
    }
  }

  /// The peak's words stand above its line and the bound's below, so that the two can be one.
  void add_levels() {
    add("<path class=\"l\" d=\"M{} {:.2f}H{}\"/><text x=\"{}\" y=\"{:.2f}\">peak {}</text>\n",
        plot_left, y(plan_.peak_bytes), plot_right + 6, plot_right + 10, y(plan_.peak_bytes) - 1,
        in_units(plan_.peak_bytes));
    add("<path class=\"l\" stroke-dasharray=\"6 4\" d=\"M{} {:.2f}H{}\"/><text x=\"{}\" "
        "y=\"{:.2f}\">bound {}</text>\n",
        plot_left, y(plan_.lower_bound_bytes), plot_right + 6, plot_right + 10,
        y(plan_.lower_bound_bytes) + 13, in_units(plan_.lower_bound_bytes));
  }

  /// What the shades stand for, those that some buffer can have.
  void add_legend() {
    if (most_ == 0) return;
    constexpr double row = 20;
    double level = plot_bottom;
    for (std::size_t each = shade(1); each < shades.size(); ++each) {
      level -= row;
      add("<path class=\"s{}\" d=\"M{} {}h14v14h-14z\"/><text x=\"{}\" y=\"{}\">{}</text>\n", each,
          plot_right + 20, level, plot_right + 40, level + 11, format_size(least_of(each)));
    }
    add("<text x=\"{}\" y=\"{}\">sizes from</text>\n", plot_right + 20, level - 6);
  }

  const Lifetimes& lifetimes_;
  const Plan& plan_;
  std::uint64_t from_ = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t to_ = 0;
  std::size_t most_ = 0;  // the largest size
  std::string svg_;
};

}  // namespace

std::string plan_picture(const Lifetimes& lifetimes, const Plan& plan) {
  return Painter(lifetimes, plan).paint();
}

}  // namespace cistern::command
