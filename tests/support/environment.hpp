// Sets an environment variable for the length of a test.
#pragma once

#include <cstdlib>

namespace cistern::testing {

class Environment {
 public:
  /// Null unsets the variable. It is unset in the end.
  Environment(const char* name, const char* value) : name_(name) {
    if (value == nullptr) {
      unsetenv(name);
    } else {
      setenv(name, value, 1);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  Environment(Environment&&) = delete;
  Environment& operator=(Environment&&) = delete;
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

}  // namespace cistern::testing
