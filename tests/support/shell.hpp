// Runs programs as their users do.
#pragma once

#include <string>

namespace cistern::testing {

struct Outcome {
  int status = -1;     // of the exit; -1 if it did not exit by itself
  std::string output;  // standard output
  std::string errors;  // standard error, where it was asked for
};

/// Runs a line of shell; what it prints on standard output comes back.
Outcome run_shell(const std::string& line);

}  // namespace cistern::testing
