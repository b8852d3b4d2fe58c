#include "report.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace decode {
namespace {

constexpr const char* note =
    "\nof device: allocations a token that reached it; alloc us: time in the allocator, a\n"
    "token, from a pass of its own with a clock around every allocation and free, the\n"
    "clock's cost taken off; live, reserved: peaks.\n";

/// A stack's figures as they are printed: by the token, and beside the raw device's.
struct Figures {
  double tokens_per_second;
  double speedup;
  double allocations_per_token;
  double device_allocations_per_token;
  double allocator_us_per_token;
};

Figures figures(const Report& report, const StackReport& of) {
  const auto tokens = static_cast<double>(report.job.tokens);
  return Figures{
      .tokens_per_second = tokens / of.seconds,
      .speedup = report.stacks.front().seconds / of.seconds,
      .allocations_per_token = static_cast<double>(of.turns.allocations) / tokens,
      .device_allocations_per_token = static_cast<double>(of.turns.device_allocations) / tokens,
      .allocator_us_per_token = of.allocator_seconds / tokens * 1e6,
  };
}

/// One hash for those of all turns.
std::uint64_t joined(const std::vector<std::uint64_t>& fingerprints) {
  return std::accumulate(
      fingerprints.begin(), fingerprints.end(), std::uint64_t{0},
      [](std::uint64_t sum, std::uint64_t next) { return std::rotl(sum, 1) ^ next; });
}

std::string in_mebibytes(std::size_t bytes) {
  return fmt::format("{:.2f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

std::string as_table(const Report& report) {
  std::string text;
  const auto out = std::back_inserter(text);
  fmt::format_to(out,
                 "{:.1f} million parameters, {} tokens after a prompt of {}, median of {} {}.\n"
                 "{:.0f} buffers a token.\n\n",
                 static_cast<double>(report.parameters) * 1e-6, report.job.tokens,
                 report.job.prompt_length, report.runs, report.runs == 1 ? "run" : "runs in turn",
                 figures(report, report.stacks.front()).allocations_per_token);

  constexpr const char* columns = "{:>8} {:>7} {:>9} {:>8} {:>7} {:>9} {:>9}  {}\n";
  fmt::format_to(out, columns, "tokens/s", "vs raw", "of device", "alloc us", "hits", "live",
                 "reserved", "stack");
  for (const StackReport& stack : report.stacks) {
    const Figures shown = figures(report, stack);
    fmt::format_to(out, columns, fmt::format("{:.1f}", shown.tokens_per_second),
                   fmt::format("{:.3f}x", shown.speedup),
                   fmt::format("{:.2f}", shown.device_allocations_per_token),
                   fmt::format("{:.1f}", shown.allocator_us_per_token),
                   fmt::format("{:.2f}%", 100 * stack.turns.hit_rate()),
                   in_mebibytes(stack.whole.live_requested.peak),
                   in_mebibytes(stack.whole.reserved.peak), stack.stack);
  }

  text += note;
  fmt::format_to(
      out, "Logits: {}.\n",
      report.difference.empty() ? "the same to the bit on every stack" : report.difference);
  if (report.check) {
    fmt::format_to(out, "Reference: {}; logits differ by {:.1e} at most, {:.1e} are allowed.\n",
                   report.check->passed() ? "agrees" : "disagrees", report.check->deviation.largest,
                   report.check->tolerance);
  }
  if (!report.trace.empty()) fmt::format_to(out, "Trace: {}\n", report.trace);
  return text;
}

std::string as_json(const Report& report) {
  using Json = nlohmann::ordered_json;
  const Config& config = report.job.config;
  Json document{
      {"model",
       {{"parameters", report.parameters},
        {"vocabulary", config.vocabulary},
        {"width", config.width},
        {"layers", config.layers},
        {"heads", config.heads},
        {"shared_heads", config.shared_heads},
        {"mlp_width", config.mlp_width}}},
      {"tokens", report.job.tokens},
      {"prompt_length", report.job.prompt_length},
      {"seed", report.job.seed},
      {"runs_per_stack", report.runs},
      {"generated", report.output.tokens},
      {"mean_log_probability", report.output.mean_log_probability},
      {"fingerprint", fmt::format("{:016x}", joined(report.output.fingerprints))},
      {"identical", report.difference.empty()},
  };
  for (const StackReport& stack : report.stacks) {
    const Figures shown = figures(report, stack);
    document["runs"].push_back({
        {"stack", stack.stack},
        {"tokens_per_second", shown.tokens_per_second},
        {"speedup", shown.speedup},
        {"allocations_per_token", shown.allocations_per_token},
        {"device_allocations_per_token", shown.device_allocations_per_token},
        {"allocator_us_per_token", shown.allocator_us_per_token},
        {"hits", stack.turns.hits},
        {"misses", stack.turns.misses},
        {"hit_rate", stack.turns.hit_rate()},
        {"peak_live_bytes", stack.whole.live_requested.peak},
        {"peak_reserved_bytes", stack.whole.reserved.peak},
        {"utilisation", stack.whole.utilisation()},
    });
  }
  if (report.check) {
    const Deviation& deviation = report.check->deviation;
    document["check"] = {{"passed", report.check->passed()},
                         {"largest_deviation", deviation.largest},
                         {"worst_turn", deviation.worst},
                         {"tolerance", report.check->tolerance}};
  }
  if (!report.trace.empty()) document["trace"] = report.trace;
  return document.dump(2) + "\n";
}

}  // namespace decode
