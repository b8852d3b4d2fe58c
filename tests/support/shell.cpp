#include "support/shell.hpp"

#include <array>
#include <cstddef>
#include <cstdio>

#include <sys/wait.h>

namespace cistern::testing {

Outcome run_shell(const std::string& line) {
  Outcome outcome;
  std::FILE* pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> piece{};
  while (const std::size_t read = std::fread(piece.data(), 1, piece.size(), pipe)) {
    outcome.output.append(piece.data(), read);
  }
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

}  // namespace cistern::testing
