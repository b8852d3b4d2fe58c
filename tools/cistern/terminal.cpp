#include "terminal.hpp"

#include <algorithm>

#include <sys/ioctl.h>
#include <unistd.h>

namespace cistern::command {

bool is_terminal(std::FILE* file) noexcept {
  return isatty(fileno(file)) == 1;
}

std::size_t columns() noexcept {
  winsize size{};
  if (!is_terminal(stdout) || ioctl(fileno(stdout), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
    return 100;
  return std::clamp<std::size_t>(size.ws_col, 80, 120);
}

}  // namespace cistern::command
