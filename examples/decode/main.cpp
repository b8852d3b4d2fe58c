// decode: a small transformer that takes every buffer it computes with, about a thousand a token,
// from cistern. It decodes the same tokens straight from the device and over each stack it is
// given, says what each cost, and fails unless all computed the same to the bit. The device is the
// CPU, or an OpenCL device, whose kernels then do the arithmetic.
//
// decode.trace.gz, which lies beside this file, is what `decode --tokens 12 --trace FILE` records,
// compressed.
//
// Exit status: 0 done, 1 the job failed (why is on standard error), 2 the arguments are wrong.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cistern/core/device.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "report.hpp"

namespace decode {
namespace {

struct Arguments {
  Job job;
  std::string device = "host";
  std::vector<std::string> stacks{};  // none listed: those of the device
  std::size_t runs = 5;
  std::string trace;
  bool check = false;
  bool json = false;
};

/// Between float sums and double ones; logits are about one in size.
constexpr double tolerance = 1e-4;

std::vector<std::string> stacks_on(const std::string& device) {
  if (device == "host") return {"cache > host", "planned > cache > host"};
  return {"cache > opencl", "coalesce > opencl"};
}

/// Why the program cannot compute with memory of the stack `text` on `device`; empty if it can.
std::string why_unusable(const std::string& text, const std::string& device) {
  try {
    const auto stack = cistern::try_open(text);
    if (!stack) return stack.error().what();
    const bool is_host = (*stack)->device().limits().host_addressable;
    if (is_host != (device == "host"))
      return fmt::format("the memory of \"{}\" is not {}", text,
                         device == "host" ? "the CPU's" : "buffers of an OpenCL device");
    static_cast<void>(make_operators(**stack));
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--tokens", arguments.job.tokens, "How many to decode")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--prompt-length", arguments.job.prompt_length, "Tokens of the prompt")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", arguments.job.seed, "Of weights and prompt")->capture_default_str();
  app.add_option("--device", arguments.device, "Where to compute")
      ->check(CLI::IsMember({"host", "opencl"}))
      ->capture_default_str();
  app.add_option("--stack", arguments.stacks,
                 "A stack to compare with the raw device; repeatable; by default "
                 "\"cache\" and another over the device")
      ->type_name("STACK")
      ->allow_extra_args(false);
  app.add_option("--runs", arguments.runs, "Of each stack, in turn; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--trace", arguments.trace, "Record what the first stack is asked for to a file")
      ->type_name("FILE");
  app.add_flag("--check", arguments.check, "Hold the logits against a plain implementation");
  app.add_flag("--json", arguments.json, "Print one JSON document");
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// Remembers the first output it sees, and where a later one differs from it.
class Comparison {
 public:
  explicit Comparison(Report& report) : report_(report) {}

  void see(const Output& output, const std::string& stack) {
    std::vector<std::uint64_t>& first = report_.output.fingerprints;
    if (first.empty()) report_.output = output;
    const auto [left, right] = std::ranges::mismatch(first, output.fingerprints);
    if (left == first.end() || !report_.difference.empty()) return;
    report_.difference = fmt::format("those of turn {} differ between {} and {}",
                                     left - first.begin(), report_.stacks.front().stack, stack);
  }

 private:
  Report& report_;
};

Report run(const Arguments& arguments) {
  const Job& job = arguments.job;
  Report report{.job = job, .runs = arguments.runs};
  report.stacks.push_back({.stack = arguments.device});
  for (const std::string& stack : arguments.stacks)
    report.stacks.push_back({.stack = stack});
  Comparison comparison(report);

  std::vector<std::vector<double>> seconds(report.stacks.size());
  for (std::size_t run = 0; run < arguments.runs; ++run) {
    for (std::size_t i = 0; i < report.stacks.size(); ++i) {
      StackReport& stack = report.stacks[i];
      Throughput measured = measure_throughput(job, stack.stack);
      comparison.see(measured.output, stack.stack);
      seconds[i].push_back(measured.seconds);
      stack.turns = measured.turns;
      stack.whole = measured.whole;
      report.parameters = measured.parameters;
    }
  }
  for (std::size_t i = 0; i < report.stacks.size(); ++i) {
    StackReport& stack = report.stacks[i];
    stack.seconds = median(seconds[i]);
    const AllocatorTime measured = measure_allocator(job, stack.stack);
    comparison.see(measured.output, stack.stack);
    stack.allocator_seconds = measured.seconds;
  }

  const std::string& first = report.stacks[1].stack;
  if (!arguments.trace.empty()) {
    comparison.see(record(job, first, arguments.trace), first);
    report.trace = arguments.trace;
  }
  if (arguments.check) {
    report.check = Check{.deviation = check(job, first), .tolerance = tolerance};
    comparison.see(report.check->deviation.output, first);
  }
  return report;
}

int main(int count, char** words) {
  Arguments arguments;
  CLI::App app("Decodes tokens with memory from cistern, and compares stacks by it.", "decode");
  add_options(app, arguments);
  try {
    app.parse(count, words);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (arguments.device == "opencl") {
    std::string why_none;
    if (cistern::find_opencl_devices(why_none).empty()) {
      fmt::print(stderr, "decode: no OpenCL device: {}\n", why_none);
      return 1;
    }
  }
  if (arguments.stacks.empty()) arguments.stacks = stacks_on(arguments.device);
  for (const std::string& stack : arguments.stacks) {
    if (const std::string why = why_unusable(stack, arguments.device); !why.empty()) {
      fmt::print(stderr, "decode: {}\n", why);
      return 2;
    }
  }

  const Report report = run(arguments);
  fmt::print("{}", arguments.json ? as_json(report) : as_table(report));
  if (!report.difference.empty()) {
    fmt::print(stderr, "decode: the logits are not the same: {}\n", report.difference);
    return 1;
  }
  if (report.check && !report.check->passed()) {
    fmt::print(stderr, "decode: turn {} is {:.1e} from the reference, {:.1e} are allowed\n",
               report.check->deviation.worst, report.check->deviation.largest, tolerance);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace decode

int main(int count, char** words) {
  try {
    return decode::main(count, words);
  } catch (const std::exception& error) {
    std::fputs(("decode: " + std::string(error.what()) + "\n").c_str(), stderr);
    return 1;
  }
}
