#include "progress.hpp"

#include <cstdio>
#include <utility>

#include <fmt/format.h>

#include "terminal.hpp"

namespace cistern::command {

namespace {
constexpr const char* wipe_line = "\r\033[K";
}

using namespace std::chrono_literals;

Progress::Progress(std::string what)
    : what_(std::move(what)), is_watched_(is_terminal(stderr)), next_(Clock::now() + 2s) {}

void Progress::wipe() {
  if (is_shown_) std::fputs(wipe_line, stderr);
  is_shown_ = false;
}

void Progress::update(double part) {
  if (!is_watched_ || Clock::now() < next_) return;
  next_ = Clock::now() + 200ms;
  is_shown_ = true;
  fmt::print(stderr, "{}{}: {:.0f}%", wipe_line, what_, 100 * part);
}

}  // namespace cistern::command
