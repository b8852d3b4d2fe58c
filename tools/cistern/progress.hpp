// Says on standard error how far a job is, if it takes long and somebody watches. There is no
// thread behind it: one more thread would make the allocators that are being measured take other
// ways.
#pragma once

#include <chrono>
#include <string>

namespace cistern::command {

class Progress {
 public:
  explicit Progress(std::string what);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;
  ~Progress() { wipe(); }

  /// `part` of the job, from 0 to 1, is done. Silent for the first two seconds, and then but for
  /// some times a second.
  void update(double part);

  /// Makes room for other output.
  void wipe();

 private:
  using Clock = std::chrono::steady_clock;

  std::string what_;
  bool is_watched_;
  bool is_shown_ = false;
  Clock::time_point next_;
};

}  // namespace cistern::command
