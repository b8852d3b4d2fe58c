#include "cistern/core/shortage.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "cistern/core/resource.hpp"
#include "cistern/core/size_tally.hpp"

namespace cistern {
namespace {

/// "512 B", "1.50 MiB": for people.
struct Readable {
  explicit Readable(std::size_t bytes) noexcept {
    static constexpr std::array units = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
      std::snprintf(text.data(), text.size(), "%zu B", bytes);
      return;
    }
    std::size_t unit = 0;
    auto amount = static_cast<double>(bytes) / 1024;
    for (; amount >= 1024 && unit + 1 < units.size(); ++unit)
      amount /= 1024;
    std::snprintf(text.data(), text.size(), "%.2f %s", amount, units[unit]);
  }
  [[nodiscard]] const char* c_str() const noexcept { return text.data(); }

  std::array<char, 32> text{};
};

[[gnu::format(printf, 2, 3)]] void append(std::string& text, const char* format, ...) {
  std::array<char, 320> line{};
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  va_end(arguments);
  text.append(line.data(),
              std::min(line.size() - 1, static_cast<std::size_t>(std::max(length, 0))));
}

}  // namespace

Shortage explain_failure(const Resource& resource, const Request& request,
                         const Error& error) noexcept {
  const Stats stats = resource.stats();
  Shortage shortage{.error = error,
                    .requested = request.bytes,
                    .alignment = request.alignment,
                    .live_requested = stats.live_requested.current,
                    .live_granted = stats.live_granted.current,
                    .cached = stats.cached.current,
                    .reserved = stats.reserved.current};
  resource.explain(shortage);
  return shortage;
}

void Shortage::add_limit(std::size_t max_bytes, std::size_t left) noexcept {
  if (left >= limit_left) return;
  limit = max_bytes;
  limit_left = left;
}

void Shortage::add_holes(std::size_t sum, std::size_t largest) noexcept {
  holes += sum;
  largest_hole = std::max(largest_hole, largest);
}

void Shortage::add_step(const char* name, std::size_t returned) noexcept {
  if (step_count < steps.size()) steps[step_count++] = {.name = name, .returned = returned};
}

void Shortage::add_sizes(const SizeTally& tally) noexcept {
  if (size_count > 0) return;  // what an inner pool holds is the same memory again
  const auto held = [](const Size& size) { return size.live + size.idle; };
  tally.each([&](const Size& each) {
    auto* const end = sizes.begin() + size_count;
    auto* const place = std::find_if(sizes.begin(), end,
                                     [&](const Size& other) { return held(each) > held(other); });
    if (place == sizes.end()) return;
    if (size_count < sizes.size()) ++size_count;
    std::move_backward(place, sizes.begin() + size_count - 1, sizes.begin() + size_count);
    *place = each;
  });
}

std::size_t Shortage::fragmentation() const noexcept {
  if (!error.is_exhaustion()) return 0;
  const std::size_t at_hand = std::max(largest_hole, error.available);
  return std::min(saturating_subtract(requested, at_hand), holes - largest_hole);
}

std::size_t Shortage::print_line(char* out, std::size_t size) const noexcept {
  std::array<char, 128> refusal{};
  print(refusal.data(), refusal.size(), error);
  std::size_t length = 0;
  const auto add = [&](const char* what, const char* value) {
    const int written = std::snprintf(out + length, size - length, "%s%s", what, value);
    length = std::min(size - 1, length + static_cast<std::size_t>(std::max(written, 0)));
  };
  add(refusal.data(), "");
  if (!error.is_exhaustion()) return length;
  add("; live ", Readable(live_granted).c_str());
  add(", idle ", Readable(std::max(cached, holes)).c_str());
  if (limit != unbounded) add(", limit ", Readable(limit).c_str());
  if (device_total > 0) add(", device free ", Readable(device_free).c_str());
  if (fragmentation() > 0) add(", fragmented ", Readable(fragmentation()).c_str());
  return length;
}

std::string Shortage::text() const {
  std::string text = describe(error) + "\n";
  append(text, "  requested      %s", Readable(requested).c_str());
  if (alignment > 0) append(text, ", aligned to %zu", alignment);
  append(text, "\n  live           %s requested, %s granted\n", Readable(live_requested).c_str(),
         Readable(live_granted).c_str());
  append(text, "  cached         %s\n", Readable(cached).c_str());
  append(text, "  reserved       %s\n", Readable(reserved).c_str());
  if (limit != unbounded) {
    append(text, "  limit          %s, of which %s are left\n", Readable(limit).c_str(),
           Readable(limit_left).c_str());
  }
  if (device_total > 0) {
    append(text, "  device         %s: %s in all, %s free\n", device,
           Readable(device_total).c_str(), Readable(device_free).c_str());
  } else {
    append(text, "  device         %s\n", device);
  }
  append(text, "  holes          %s, the largest %s\n", Readable(holes).c_str(),
         Readable(largest_hole).c_str());
  if (error.is_exhaustion()) {
    append(text, "  fragmentation  %s of the shortage\n", Readable(fragmentation()).c_str());
  }
  if (step_count > 0) append(text, "  recovery       %zu attempts; returned:", attempts);
  for (std::size_t i = 0; i < step_count; ++i) {
    append(text, "%s %s %s%s", i > 0 ? "," : "", steps[i].name, Readable(steps[i].returned).c_str(),
           i + 1 == step_count ? "\n" : "");
  }
  for (std::size_t i = 0; i < size_count; ++i) {
    append(text, "  %-14s %s each: %s live, %s idle\n", i > 0 ? "" : "most in blocks",
           Readable(sizes[i].bytes).c_str(), Readable(sizes[i].live).c_str(),
           Readable(sizes[i].idle).c_str());
  }
  return text;
}

}  // namespace cistern
