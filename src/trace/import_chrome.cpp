// Imports the Chrome trace that torch.profiler exports with profile_memory=True: its "[memory]"
// instants. The parser reports tokens as it meets them, so that a file of gigabytes never stands in
// memory as a tree.
//
// A profile may miss what happened on threads it did not watch. An allocation at a live address
// therefore means that a free was missed, and a free of an idle one that an allocation was.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "trace/fail.hpp"
#include "trace/lines.hpp"
#include "trace/readers.hpp"
#include "trace/trace_builder.hpp"

namespace cistern::detail {
namespace {

using Status = tl::expected<void, TraceError>;

/// Goes through characters and lets others see how far the parser got.
class WatchedCharacters {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  WatchedCharacters(const char* at, std::uint64_t* passed) : at_(at), passed_(passed) {}

  reference operator*() const { return *at_; }
  WatchedCharacters& operator++() {
    ++at_;
    ++*passed_;
    return *this;
  }
  friend bool operator==(const WatchedCharacters& left, const WatchedCharacters& right) {
    return left.at_ == right.at_;
  }

 private:
  const char* at_;
  std::uint64_t* passed_;
};

struct ChromeDevice {
  std::int64_t type = 0;  // 0 is the CPU, 1 CUDA
  std::int64_t id = -1;   // the CPU's is -1

  friend auto operator<=>(const ChromeDevice&, const ChromeDevice&) = default;
};

struct MemoryEvent {
  std::uint64_t position = 0;  // of its object
  std::uint64_t time_ns = 0;
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t thread = 0;
  ChromeDevice device;
  bool is_free = false;
};

/// Microseconds as nanoseconds. Read as text, as a double has too few digits; those after the third
/// decimal are below a nanosecond.
std::optional<std::uint64_t> parse_microseconds(std::string_view text) {
  const std::size_t point = std::min(text.find('.'), text.size());
  const auto whole = parse_number(text.substr(0, point));
  std::string thousandths(text.substr(std::min(point + 1, text.size())));
  const bool all_digits = thousandths.find_first_not_of("0123456789") == std::string::npos;
  if (!whole || !all_digits || *whole >= UINT64_MAX / 1000) return std::nullopt;
  thousandths.resize(3, '0');
  return *whole * 1000 + *parse_number(thousandths);
}

/// The parser's listener. Knows three places in the nesting: the object of the whole file (absent
/// where the file is a bare list), the objects in its list "traceEvents", and their objects "args".
class Listener {
 public:
  std::vector<MemoryEvent> events;
  std::uint64_t passed = 0;
  std::optional<TraceError> error;

  bool start_object(std::size_t /*elements*/) {
    ++depth_;
    if (depth_ == event_depth_ && in_events_) {
      current_ = {};
      current_.position = passed == 0 ? 0 : passed - 1;
    } else if (depth_ == 1) {
      event_depth_ = 3;
    } else if (in_events_ && depth_ == event_depth_ + 1) {
      in_arguments_ = key_ == Key::arguments;
    }
    key_ = Key::other;
    return true;
  }

  bool end_object() {
    const bool was_event = in_events_ && depth_ == event_depth_;
    --depth_;
    return !was_event || finish_event();
  }

  bool start_array(std::size_t /*elements*/) {
    ++depth_;
    if (depth_ == 1) {
      event_depth_ = 2;
      in_events_ = true;
    } else if (depth_ == 2 && event_depth_ == 3) {
      in_events_ = key_ == Key::events;
    }
    key_ = Key::other;
    return true;
  }

  bool end_array() {
    if (depth_ == event_depth_ - 1) in_events_ = false;
    --depth_;
    return true;
  }

  bool key(std::string& name) {
    key_ = Key::other;
    if (depth_ == 1) {
      if (name == "traceEvents") key_ = Key::events;
    } else if (in_events_ && depth_ == event_depth_) {
      if (name == "name") key_ = Key::name;
      if (name == "ts") key_ = Key::time;
      if (name == "tid") key_ = Key::thread;
      if (name == "args") key_ = Key::arguments;
    } else if (in_arguments_ && depth_ == event_depth_ + 1) {
      if (name == "Addr") key_ = Key::address;
      if (name == "Bytes") key_ = Key::bytes;
      if (name == "Device Type") key_ = Key::device_type;
      if (name == "Device Id") key_ = Key::device_id;
    }
    return true;
  }

  bool string(std::string& value) {
    if (key_ == Key::name) current_.is_memory = value == "[memory]";
    return done_with_key();
  }

  bool number_integer(std::int64_t value) {
    return integer(static_cast<std::uint64_t>(value), value < 0);
  }
  bool number_unsigned(std::uint64_t value) { return integer(value, false); }

  bool number_float(double value, const std::string& text) {
    if (key_ == Key::time) {
      current_.time_ns = parse_microseconds(text);
      // With an exponent or a sign, only the value is left to go by.
      if (!current_.time_ns && value >= 0 && value < 9e15) {
        current_.time_ns = static_cast<std::uint64_t>(std::llround(value * 1000));
      }
    }
    return done_with_key();
  }

  bool null() { return done_with_key(); }
  bool boolean(bool /*value*/) { return done_with_key(); }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return done_with_key(); }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& problem) {
    // The library's text begins with its own name and the place, which is said here in another way.
    const std::string_view text = problem.what();
    const std::size_t cut = text.find(": ");
    error = fail_at_byte(position == 0 ? 0 : position - 1,
                         fmt::format("is no JSON: {}",
                                     cut == std::string_view::npos ? text : text.substr(cut + 2)))
                .value();
    return false;
  }

 private:
  enum class Key {
    other,
    events,
    name,
    time,
    thread,
    arguments,
    address,
    bytes,
    device_type,
    device_id
  };

  /// What the object being read has said so far.
  struct Current {
    std::uint64_t position = 0;
    bool is_memory = false;
    std::optional<std::uint64_t> time_ns;
    std::optional<std::uint64_t> address;
    std::optional<std::uint64_t> bytes;
    bool is_free = false;
    std::uint64_t thread = 0;
    ChromeDevice device;
  };

  bool done_with_key() {
    key_ = Key::other;
    return true;
  }

  /// `value` is in two's complement if `negative`.
  bool integer(std::uint64_t value, bool negative) {
    switch (key_) {
      case Key::time:
        if (!negative && value <= UINT64_MAX / 1000) current_.time_ns = value * 1000;
        break;
      case Key::thread:
        current_.thread = value;
        break;
      case Key::address:
        current_.address = value;
        break;  // some versions print addresses as signed numbers
      case Key::bytes:
        current_.bytes = negative ? 0 - value : value;
        current_.is_free = negative;
        break;
      case Key::device_type:
        current_.device.type = static_cast<std::int64_t>(value);
        break;
      case Key::device_id:
        current_.device.id = static_cast<std::int64_t>(value);
        break;
      default:
        break;
    }
    return done_with_key();
  }

  bool finish_event() {
    const Current event = std::exchange(current_, {});
    if (!event.is_memory) return true;
    const char* const missing = !event.address   ? "Addr"
                                : !event.bytes   ? "Bytes"
                                : !event.time_ns ? "ts"
                                                 : nullptr;
    if (missing != nullptr) {
      error = fail_at_byte(event.position,
                           fmt::format("a [memory] event has no number under \"{}\"", missing))
                  .value();
      return false;
    }
    // Nothing at no address: the profiler's note of a free whose allocation it did not see.
    if (*event.address == 0 || *event.bytes == 0) return true;
    events.push_back({event.position, *event.time_ns, *event.address, *event.bytes, event.thread,
                      event.device, event.is_free});
    return true;
  }

  std::size_t depth_ = 0;
  std::size_t event_depth_ = 0;
  bool in_events_ = false;
  bool in_arguments_ = false;
  Key key_ = Key::other;
  Current current_;
};

Status keep_one_device(std::vector<MemoryEvent>& events, const ReadOptions& options) {
  std::map<ChromeDevice, std::size_t> counts;
  for (const MemoryEvent& event : events)
    ++counts[event.device];
  std::vector<std::string> names;
  std::vector<ChromeDevice> candidates;
  for (const auto& [device, count] : counts) {
    names.push_back(fmt::format("device {} of type {} ({} events)", device.id, device.type, count));
    if (!options.device || *options.device == device.id) candidates.push_back(device);
  }
  const std::string list = first_of(names);
  if (counts.empty())
    return fail("holds no [memory] events: torch.profiler records them with profile_memory=True");
  if (candidates.empty())
    return fail(fmt::format("holds nothing of device {}; it holds {}", *options.device, list));
  if (candidates.size() > 1) {
    return fail(fmt::format("holds several devices, of which one is to be chosen: {}", list));
  }
  std::erase_if(events,
                [&](const MemoryEvent& event) { return event.device != candidates.front(); });
  return {};
}

ReadResult build(const std::vector<MemoryEvent>& events) {
  TraceBuilder builder;
  for (const MemoryEvent& event : events) {
    const TraceBuilder::Context context{event.position, event.time_ns, 0, event.thread};
    const auto* block = builder.at(event.address);
    if (!event.is_free) {
      if (block != nullptr && block->live) builder.free(event.address, context);
      builder.allocate(event.address, event.bytes, context);
    } else if (block == nullptr) {
      builder.begin_with(event.address, event.bytes, context);
      builder.free(event.address, context);
    } else if (block->live) {
      if (block->bytes != event.bytes) {
        return fail_at_byte(
            event.position,
            fmt::format("frees {} bytes at address {:#x}, where byte {} allocates {}", event.bytes,
                        event.address, block->origin, block->bytes));
      }
      builder.free(event.address, context);
    }
  }
  return if_lawful(builder.finish("chrome-trace"));
}

}  // namespace

ReadResult import_chrome(std::string_view json, const ReadOptions& options) {
  Listener listener;
  const bool parsed = nlohmann::json::sax_parse(
      WatchedCharacters(json.data(), &listener.passed),
      WatchedCharacters(json.data() + json.size(), &listener.passed), &listener);
  if (!parsed)
    return tl::unexpected(
        listener.error.value_or(TraceError{"", TraceError::Unit::file, 0, "is no JSON"}));
  if (auto kept = keep_one_device(listener.events, options); !kept)
    return tl::unexpected(std::move(kept).error());
  std::stable_sort(listener.events.begin(), listener.events.end(),
                   [](const MemoryEvent& left, const MemoryEvent& right) {
                     return left.time_ns < right.time_ns;
                   });
  return build(listener.events);
}

}  // namespace cistern::detail
