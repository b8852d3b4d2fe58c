#include "cistern/core/residency.hpp"

#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string_view>

#include "cistern/core/device.hpp"

namespace cistern {
namespace {

constexpr const char* variable = "CISTERN_NO_RESIDENCY";

bool is_wanted() {
  const char* const value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  const std::string_view text = value != nullptr ? value : "";
  if (text.empty() || text == "0") return true;
  if (text == "1") return false;
  throw std::invalid_argument(std::string("the environment variable ") + variable + " is '" +
                              std::string(text) + "'; it must be 0 or 1");
}

std::size_t bytes_in(std::span<const Block> parts) noexcept {
  std::size_t bytes = 0;
  for (const Block& part : parts)
    bytes += part.bytes;
  return bytes;
}

}  // namespace

Residency::Residency(Device& device) : device_(device), is_on_(is_wanted()) {}

Error Residency::fail(Errc code, std::size_t requested, std::size_t available) const noexcept {
  return device_.fail(code, requested, available);
}

Expected<void> Residency::make_resident(std::span<const Block> parts) noexcept {
  if (!is_on_) return {};
  Expected<void> made;
  {
    const std::lock_guard lock(mutex_);
    made = commit(parts);
    if (!made) last_refusal_ = made.error();
  }
  if (!made) {
    device_.count_refused_commit();
    refused(made.error());
  }
  return made;
}

Expected<void> Residency::commit(std::span<const Block> parts) noexcept {
  if (!add(parts)) return tl::unexpected(fail(Errc::out_of_memory, bytes_in(parts)));
  if (changing_.empty()) return {};
  Expected<void> made = do_make_resident(changing_);
  if (made) {
    device_.count_commit(bytes_in(changing_));
  } else {
    remove(parts);
  }
  return made;
}

void Residency::end_residency(std::span<const Block> parts) noexcept {
  if (!is_on_) return;
  const std::lock_guard lock(mutex_);
  remove(parts);
  if (changing_.empty()) return;
  do_end_residency(changing_);
  device_.count_end_of_residency(bytes_in(changing_));
}

// Counts one more use of each part; those that had none are what changes. False, with nothing
// counted, if the host has no memory.
bool Residency::add(std::span<const Block> parts) noexcept {
  std::size_t added = 0;
  try {
    changing_.clear();
    const std::size_t most = uses_.size() + parts.size();
    if (changing_.capacity() < most) changing_.reserve(2 * most);  // so that ending never allocates
    for (; added < parts.size(); ++added) {
      const Block& part = parts[added];
      if (part.bytes == 0) continue;
      if (++uses_[Part(part)] == 1) changing_.push_back(part);
    }
    return true;
  } catch (const std::exception&) {
    remove(parts.first(added));
    return false;
  }
}

// Counts one use of each part less; those that have none any more are what changes.
void Residency::remove(std::span<const Block> parts) noexcept {
  changing_.clear();
  for (const Block& part : parts) {
    const auto found = uses_.find(Part(part));
    if (found == uses_.end() || --found->second > 0) continue;
    uses_.erase(found);
    changing_.push_back(part);
  }
}

std::optional<Error> Residency::last_refusal() const noexcept {
  const std::lock_guard lock(mutex_);
  return last_refusal_;
}

std::string Residency::validate() const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  for (const auto& [part, uses] : uses_) {
    if (uses == 0) return "residency: a part that is known is in use";
    bytes += part.bytes;
  }
  if (device_.stats().resident.current != bytes)
    return "residency: resident is the sum of the parts";
  if (changing_.capacity() < uses_.size()) return "residency: there is room to end all parts";
  return {};
}

}  // namespace cistern
