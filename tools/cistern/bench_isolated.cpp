#include "bench_isolated.hpp"

#include <array>
#include <cerrno>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <type_traits>

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cistern::command {
namespace {

static_assert(std::is_trivially_copyable_v<Sample>,
              "it crosses from one process to the other as bytes");

/// The child's life; it leaves without the parent's farewells, such as writing out what the parent
/// has buffered.
[[noreturn]] void measure_in_child(const std::function<Sample()>& measure, int out) {
  bool is_sent = false;
  try {
    const Sample sample = measure();
    is_sent = write(out, &sample, sizeof sample) == sizeof sample;
  } catch (const std::exception& error) {
    fail_isolated(error);
  }
  _exit(is_sent ? 0 : 1);
}

[[noreturn]] void answer_in_child(const std::function<bool()>& question) {
  bool holds = false;
  try {
    holds = question();
  } catch (const std::exception&) {
    holds = false;  // who asks has another way to find out why
  }
  _exit(holds ? 0 : 1);
}

}  // namespace

Sample measure_isolated(const std::function<Sample()>& measure) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::system_error(errno, std::generic_category(), "no pipe");
  const pid_t child = fork();
  if (child == 0) measure_in_child(measure, ends[1]);
  close(ends[1]);
  Sample sample;
  const bool is_received = child > 0 && read(ends[0], &sample, sizeof sample) == sizeof sample;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  if (!is_received) throw std::runtime_error("a measurement ended before its time");
  return sample;
}

void fail_isolated(const std::exception& why) {
  fmt::print(stderr, "cistern: {}\n", why.what());
  _exit(1);
}

bool holds_isolated(const std::function<bool()>& question) {
  const pid_t child = fork();
  if (child == 0) answer_in_child(question);
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

}  // namespace cistern::command
