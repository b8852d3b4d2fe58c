// What a device can do that may be told to keep memory resident: in the memory that its processor
// reaches fastest, not paged out or moved. Absent where `Device::residency` answers null.
//
// It is a hint. What a device does not take is counted and has a reason (`last_refusal`), and the
// memory can be used all the same. Thread-safe; one call is made to the device at a time, since
// whether memory is resident depends on how the call for it ends.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"

namespace cistern {

class Device;

class Residency {
 public:
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;
  Residency(Residency&&) = delete;
  Residency& operator=(Residency&&) = delete;

  /// Makes all of `parts` resident, or none, in one call to the device: one commit. Of each block
  /// only `memory`, `offset` and `bytes` count, and those without bytes not at all; the memory may
  /// be anyone's that the device can reach. The very same part may be made resident several times:
  /// it is committed once, and ends with the last of as many ends. Where nothing is new the device
  /// is not called. May use the host's memory. Errors: out_of_memory, where the device or the
  /// system can keep no more; device_failed.
  Expected<void> make_resident(std::span<const Block> parts) noexcept;

  /// Ends it, in one call, before the memory goes back. A part that is not resident (the hint may
  /// have been refused) is passed over. Allocates nothing.
  void end_residency(std::span<const Block> parts) noexcept;

  /// False where the environment variable CISTERN_NO_RESIDENCY was 1 when the device was made:
  /// every call succeeds and does nothing.
  [[nodiscard]] bool is_on() const noexcept { return is_on_; }

  /// Why the device last took no hint; nothing if it took all.
  [[nodiscard]] std::optional<Error> last_refusal() const noexcept;

  /// The law that does not hold; empty if all hold. For tests.
  [[nodiscard]] std::string validate() const;

 protected:
  /// Reads the environment. Throws std::invalid_argument where CISTERN_NO_RESIDENCY is set to
  /// anything but 0, 1 or nothing.
  explicit Residency(Device& device);
  ~Residency() = default;

  [[nodiscard]] Error fail(Errc code, std::size_t requested,
                           std::size_t available = 0) const noexcept;

  /// As the public ones, which count and see to it that each part begins and ends once; no part is
  /// empty. Called by one thread at a time. `do_make_resident` fails for all or for none.
  virtual Expected<void> do_make_resident(std::span<const Block> parts) noexcept = 0;
  virtual void do_end_residency(std::span<const Block> parts) noexcept = 0;

  /// Called outside every lock when the hint was refused, for a device that has more to say.
  virtual void refused(const Error& /*error*/) noexcept {}

 private:
  struct Part {
    std::uintptr_t memory = 0;
    std::size_t offset = 0;
    std::size_t bytes = 0;

    explicit Part(const Block& block) noexcept
        : memory(reinterpret_cast<std::uintptr_t>(block.memory)),
          offset(block.offset),
          bytes(block.bytes) {}
    auto operator<=>(const Part&) const = default;
  };

  // Under the lock.
  Expected<void> commit(std::span<const Block> parts) noexcept;
  bool add(std::span<const Block> parts) noexcept;
  void remove(std::span<const Block> parts) noexcept;

  Device& device_;
  const bool is_on_;

  mutable std::mutex mutex_;          // guards all below
  std::map<Part, std::size_t> uses_;  // so often each part was made resident
  std::vector<Block> changing_;       // what a call is about; has room for all parts
  std::optional<Error> last_refusal_;
};

}  // namespace cistern
