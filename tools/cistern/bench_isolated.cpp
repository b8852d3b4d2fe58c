#include "bench_isolated.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cistern::command {
namespace {

using LimitClock = std::chrono::steady_clock;

static_assert(std::is_trivially_copyable_v<Sample>,
              "it crosses from one process to the other as bytes");

// How an answer begins.
constexpr char sample_mark = 's';
constexpr char truth_mark = 't';
constexpr char failure_mark = 'f';

/// Of a child: where it answers, whichever of its threads does.
int answer_end = -1;

[[nodiscard]] bool is_interrupted(ssize_t result) noexcept {
  return result < 0 && errno == EINTR;
}

/// Allocates nothing: there may be no memory, or an allocator's lock that nobody gives back.
void answer_parent(std::string_view bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t sent = write(answer_end, bytes.data(), bytes.size());
    if (is_interrupted(sent)) continue;
    if (sent < 0) return;  // who asked is told that there was no answer
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}
void answer_parent(char mark, std::string_view bytes = {}) noexcept {
  answer_parent({&mark, 1});
  answer_parent(bytes);
}

/// The child's life; it leaves without the parent's farewells, such as writing out what the parent
/// has buffered.
[[noreturn]] void live_as_child(const std::function<void()>& task, int out, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // NOLINT(cppcoreguidelines-pro-type-vararg)
  if (getppid() != parent) _exit(1);
  answer_end = out;
  try {
    task();
  } catch (const std::exception& error) {
    fail_isolated(error);
  }
  _exit(0);
}

/// Everything until the other end is closed; false if that does not come in time.
[[nodiscard]] bool read_answer(int in, LimitClock::time_point deadline, std::string& bytes) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - LimitClock::now());
    if (left.count() <= 0) return false;
    pollfd waiting{.fd = in, .events = POLLIN, .revents = 0};
    constexpr std::chrono::milliseconds longest = std::chrono::hours(1);  // an int holds it
    const int ready = poll(&waiting, 1, static_cast<int>(std::min(left, longest).count()));
    if (ready == 0 || is_interrupted(ready)) continue;
    std::array<char, 512> piece{};
    const ssize_t count = ready < 0 ? ready : read(in, piece.data(), piece.size());
    if (is_interrupted(count)) continue;
    if (count <= 0) return true;
    bytes.append(piece.data(), static_cast<std::size_t>(count));
  }
}

struct EndedChild {
  std::string answer;
  int status = 0;  // as waitpid gives it
  bool is_late = false;
};

EndedChild run_in_child(const std::function<void()>& task, LimitClock::duration limit) {
  std::array<int, 2> ends{};
  // A program that the child starts must not keep the pipe open.
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    throw std::system_error(errno, std::generic_category(), "no pipe");
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) live_as_child(task, ends[1], parent);
  const int why_none = errno;
  close(ends[1]);
  EndedChild ended;
  if (child > 0) ended.is_late = !read_answer(ends[0], LimitClock::now() + limit, ended.answer);
  close(ends[0]);
  if (child < 0) throw std::system_error(why_none, std::generic_category(), "no process");
  if (ended.is_late) kill(child, SIGKILL);
  while (is_interrupted(waitpid(child, &ended.status, 0))) {
  }
  return ended;
}

std::string why_no_sample(const EndedChild& ended, LimitClock::duration limit) {
  if (ended.is_late) {
    return fmt::format("it took longer than {:.1f} s and was ended",
                       std::chrono::duration<double>(limit).count());
  }
  if (ended.answer.starts_with(failure_mark)) return ended.answer.substr(1);
  if (WIFSIGNALED(ended.status)) {
    const int signal = WTERMSIG(ended.status);
    const char* described = sigdescr_np(signal);
    return fmt::format("it was ended by signal {} ({})", signal,
                       described == nullptr ? "unknown" : described);
  }
  return fmt::format("it ended before its time, with status {}", WEXITSTATUS(ended.status));
}

}  // namespace

Sample measure_isolated(const std::function<Sample()>& measure, LimitClock::duration limit) {
  const EndedChild ended = run_in_child(
      [&] {
        const Sample sample = measure();
        std::array<char, sizeof sample> bytes{};
        std::memcpy(bytes.data(), &sample, sizeof sample);
        answer_parent(sample_mark, {bytes.data(), bytes.size()});
      },
      limit);
  if (ended.is_late || !ended.answer.starts_with(sample_mark) ||
      ended.answer.size() != 1 + sizeof(Sample))
    throw std::runtime_error(why_no_sample(ended, limit));
  Sample sample;
  std::memcpy(&sample, ended.answer.data() + 1, sizeof sample);
  return sample;
}

void fail_isolated(const std::exception& why) noexcept {
  static std::atomic_flag is_failing;
  while (is_failing.test_and_set())
    pause();  // the first to fail ends all
  answer_parent(failure_mark, why.what());
  _exit(1);
}

bool holds_isolated(const std::function<bool()>& question, LimitClock::duration limit) {
  const EndedChild ended = run_in_child(
      [&] {
        if (question()) answer_parent(truth_mark);
      },
      limit);
  return !ended.is_late && ended.answer.starts_with(truth_mark);
}

}  // namespace cistern::command
