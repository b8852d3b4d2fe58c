#include "cistern/core/biased_lock.hpp"

#include <cstdio>
#include <cstdlib>

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cistern {
namespace {

bool call_membarrier(int command) noexcept {
  return syscall(SYS_membarrier, command, 0U, 0) == 0;
}

}  // namespace

bool BiasedLock::is_supported() noexcept {
  static const bool is_registered = call_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  return is_registered;
}

void BiasedLock::fence() noexcept {
  if (call_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) [[likely]]
    return;
  // A thread that is inside might not be seen: to go on could give its block to two.
  std::fputs("cistern: the system has taken membarrier(2) back from a process that was using it\n",
             stderr);
  std::abort();
}

}  // namespace cistern
