// Imports the snapshots of PyTorch's CUDA caching allocator. A snapshot holds the final state of
// every segment and, per device, the last events before it. A block lives from `alloc` to
// `free_completed`: between the request to free it and the completion other streams may still use
// it. Blocks live before the first event are those that are freed though no event allocated them,
// and those that are active in the end though no event names them.
#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "trace/fail.hpp"
#include "trace/infer_layout.hpp"
#include "trace/pickle.hpp"
#include "trace/readers.hpp"
#include "trace/trace_builder.hpp"
#include "trace/untrusted_hash.hpp"

namespace cistern::detail {
namespace {

using pickle::Container;
using pickle::Kind;
using pickle::Value;
using Status = tl::expected<void, TraceError>;
template <typename T>
using Result = tl::expected<T, TraceError>;

constexpr std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a truth value";
    case Kind::natural:
    case Kind::negative:
    case Kind::wide:
      return "a number out of range";
    case Kind::text:
      return "a text";
    case Kind::list:
      return "a list";
    case Kind::tuple:
      return "a tuple";
    case Kind::dictionary:
      return "a dictionary";
  }
  return "?";
}

/// Reads the fields of dictionaries, with errors that name their byte. Each list and dictionary may
/// be visited once: a snapshot does not share them, and a hostile one could otherwise make a few
/// bytes stand for endless work.
class Fields {
 public:
  explicit Fields(const pickle::Document& document)
      : document_(document), visited_(document.containers.size()) {}

  Result<const Container*> visit(const Value& value, Kind kind, std::string_view what) {
    if (value.kind != kind) {
      return fail(
          fmt::format("{} should be {}, not {}", what, kind_name(kind), kind_name(value.kind)));
    }
    const auto index = static_cast<std::size_t>(value.payload);
    const Container& container = document_.containers[index];
    if (visited_[index])
      return fail_at_byte(container.position, fmt::format("{} occurs in two places", what));
    visited_[index] = true;
    return &container;
  }

  [[nodiscard]] const Value* find(const Container& record, std::string_view key) const {
    return document_.find(record, key);
  }

  [[nodiscard]] Result<const Value*> require(const Container& record, std::string_view key) const {
    if (const Value* value = find(record, key)) return value;
    return fail_at_byte(record.position, fmt::format("has no field {}", in_quotes(key)));
  }

  [[nodiscard]] Result<std::uint64_t> number(const Container& record, std::string_view key) const {
    return require(record, key).and_then([&](const Value* value) -> Result<std::uint64_t> {
      if (value->kind == Kind::natural) return value->payload;
      return fail_at_byte(record.position,
                          fmt::format("field {} should be a number from 0 to 2^64-1, not {}",
                                      in_quotes(key), kind_name(value->kind)));
    });
  }

  [[nodiscard]] Result<std::uint64_t> number_or(const Container& record, std::string_view key,
                                                std::uint64_t otherwise) const {
    const Value* value = find(record, key);
    if (value == nullptr || value->kind == Kind::none) return otherwise;
    return number(record, key);
  }

  [[nodiscard]] Result<std::string_view> text(const Container& record, std::string_view key) const {
    return require(record, key).and_then([&](const Value* value) -> Result<std::string_view> {
      if (value->kind == Kind::text) return document_.text(*value);
      return fail_at_byte(record.position, fmt::format("field {} should be a text, not {}",
                                                       in_quotes(key), kind_name(value->kind)));
    });
  }

 private:
  const pickle::Document& document_;
  std::vector<bool> visited_;
};

class PytorchImporter {
 public:
  /// What is said of addresses goes to `layout`, if there is one.
  PytorchImporter(const pickle::Document& document, const ReadOptions& options,
                  StatedLayout* layout)
      : root_(document.root), fields_(document), options_(options), layout_(layout) {}

  ReadResult import() {
    return open()
        .and_then([this] { return choose_device(); })
        .and_then([this] { return import_events(); })
        .and_then([this] { return import_final_state(); })
        .and_then([this] {
          number_streams();
          return if_lawful(builder_.finish("pytorch-snapshot"));
        });
  }

 private:
  struct Segment {
    const Container* record;
    std::uint64_t device;
  };

  /// Finds the segments and the devices' events. The oldest snapshots are a list of segments and
  /// nothing else.
  Status open() {
    if (root_.kind == Kind::list) return open_segments(root_);
    const auto snapshot = fields_.visit(root_, Kind::dictionary, "a snapshot");
    if (!snapshot) return tl::unexpected(snapshot.error());
    const auto segments = fields_.require(**snapshot, "segments");
    if (!segments) return tl::unexpected(segments.error());
    const Value* const traces = fields_.find(**snapshot, "device_traces");
    return open_segments(**segments).and_then([&]() -> Status {
      return traces == nullptr ? Status() : open_traces(*traces);
    });
  }

  Status open_segments(const Value& value) {
    const auto list = fields_.visit(value, Kind::list, "the list of segments");
    if (!list) return tl::unexpected(list.error());
    for (const Value& item : (*list)->items) {
      const auto record = fields_.visit(item, Kind::dictionary, "a segment");
      if (!record) return tl::unexpected(record.error());
      const auto device = fields_.number_or(**record, "device", 0);
      if (!device) return tl::unexpected(device.error());
      segments_.push_back({*record, *device});
    }
    return {};
  }

  Status open_traces(const Value& value) {
    const auto list = fields_.visit(value, Kind::list, "device_traces");
    if (!list) return tl::unexpected(list.error());
    for (const Value& item : (*list)->items) {
      const auto events = fields_.visit(item, Kind::list, "a device's list of events");
      if (!events) return tl::unexpected(events.error());
      traces_.push_back(*events);
    }
    return {};
  }

  Status choose_device() {
    struct Found {
      std::size_t events = 0;
      std::size_t segments = 0;
    };
    std::map<std::uint64_t, Found> devices;
    for (std::size_t device = 0; device < traces_.size(); ++device) {
      if (!traces_[device]->items.empty()) devices[device].events = traces_[device]->items.size();
    }
    const bool any_events = !devices.empty();
    for (const Segment& segment : segments_)
      ++devices[segment.device].segments;

    std::vector<std::string> names;
    names.reserve(devices.size());
    for (const auto& [device, found] : devices) {
      names.push_back(
          fmt::format("device {} ({} events, {} segments)", device, found.events, found.segments));
    }
    const std::string list = first_of(names);
    if (options_.device) {
      device_ = static_cast<std::uint64_t>(*options_.device);
      if (*options_.device >= 0 && devices.contains(device_)) return {};
      return fail(fmt::format("holds nothing of device {}; it holds {}", *options_.device,
                              list.empty() ? "nothing of any" : list));
    }
    const auto is_candidate = [any_events](const auto& entry) {
      return !any_events || entry.second.events != 0;
    };
    const auto count = std::count_if(devices.begin(), devices.end(), is_candidate);
    if (count > 1)
      return fail(fmt::format("holds several devices, of which one is to be chosen: {}", list));
    if (count == 1) device_ = std::find_if(devices.begin(), devices.end(), is_candidate)->first;
    return {};
  }

  Status import_events() {
    if (device_ >= traces_.size()) return {};
    const auto& items = traces_[static_cast<std::size_t>(device_)]->items;
    for (std::size_t index = 0; index < items.size(); ++index) {
      if (auto status = import_event(items[index], index); !status) {
        return status.map_error([index](TraceError error) {
          error.message = fmt::format("event {}: {}", index, error.message);
          return error;
        });
      }
    }
    return {};
  }

  Status import_event(const Value& value, std::size_t index) {
    const auto record = fields_.visit(value, Kind::dictionary, "an event");
    if (!record) return tl::unexpected(record.error());
    const Container& event = **record;
    const auto action = fields_.text(event, "action");
    if (!action) return tl::unexpected(action.error());
    if (layout_ != nullptr && action->starts_with("segment_")) return change(event, *action);
    // Everything else (segments, out of memory, annotations) tells about the allocator, not about
    // blocks.
    if (*action != "alloc" && *action != "free_requested" && *action != "free_completed") return {};

    const auto address = fields_.number(event, "addr");
    if (!address) return tl::unexpected(address.error());
    const auto bytes = fields_.number(event, "size");
    if (!bytes) return tl::unexpected(bytes.error());
    const auto stream = fields_.number_or(event, "stream", 0);
    if (!stream) return tl::unexpected(stream.error());
    const auto time_us = fields_.number_or(event, "time_us", 0);
    if (!time_us) return tl::unexpected(time_us.error());

    const Value* const time = fields_.find(event, "time_us");
    const bool is_timed = time != nullptr && time->kind != Kind::none;
    if (*time_us > std::numeric_limits<std::uint64_t>::max() / 1000) {
      return fail_at_byte(
          event.position,
          fmt::format("field 'time_us' is {}, too large for nanoseconds", *time_us));
    }
    const TraceBuilder::Context context{index, is_timed ? *time_us * 1000 : index, *stream, 0};
    if (*action == "alloc") return allocate(event, *address, *bytes, context);
    return free(event, *address, *bytes, context, *action == "free_completed");
  }

  Status change(const Container& event, std::string_view action) {
    if (action != "segment_alloc" && action != "segment_free") return is_expandable(event);
    const auto address = fields_.number(event, "addr");
    if (!address) return tl::unexpected(address.error());
    const auto bytes = fields_.number(event, "size");
    if (!bytes) return tl::unexpected(bytes.error());
    const auto stream = fields_.number_or(event, "stream", 0);
    if (!stream) return tl::unexpected(stream.error());
    layout_->changes.push_back(
        {.event = builder_.events(),
         .kind = action == "segment_alloc" ? RecordedLayout::Change::Kind::obtained
                                           : RecordedLayout::Change::Kind::given_back,
         .segment = {.address = *address, .bytes = *bytes, .stream = *stream}});
    return {};
  }

  static Status is_expandable(const Container& record) {
    return fail_at_byte(record.position,
                        "has expandable segments, whose addresses cannot be followed");
  }

  /// Takes a segment of the final state into the layout.
  Status place(const Container& segment, std::uint64_t address, std::uint64_t stream) {
    const Value* const expandable = fields_.find(segment, "is_expandable");
    if (expandable != nullptr && expandable->kind == Kind::boolean && expandable->payload != 0)
      return is_expandable(segment);
    const auto bytes = fields_.number(segment, "total_size");
    if (!bytes) return tl::unexpected(bytes.error());
    const auto type = fields_.text(segment, "segment_type");
    if (!type) return tl::unexpected(type.error());
    if (*type != "small" && *type != "large") {
      return fail_at_byte(
          segment.position,
          fmt::format("a segment's type is {}; small or large is expected", in_quotes(*type)));
    }
    layout_->final_segments.push_back(
        {.address = address, .bytes = *bytes, .stream = stream, .small = *type == "small"});
    return {};
  }

  /// Adds a block of before the first event, with its address.
  void begin_with(std::uint64_t address, std::uint64_t bytes,
                  const TraceBuilder::Context& context) {
    builder_.begin_with(address, bytes, context);
    if (layout_ != nullptr) layout_->initial_addresses.push_back(address);
  }

  /// After an event was added: it was at this address.
  void note_address(std::uint64_t address) {
    if (layout_ != nullptr) layout_->addresses.push_back(address);
  }

  /// Segments' streams are numbered once all of the blocks' are.
  void number_streams() {
    if (layout_ == nullptr) return;
    for (RecordedLayout::Change& change : layout_->changes)
      change.segment.stream = builder_.stream(change.segment.stream);
    for (RecordedLayout::Segment& segment : layout_->final_segments)
      segment.stream = builder_.stream(segment.stream);
  }

  Status allocate(const Container& event, std::uint64_t address, std::uint64_t bytes,
                  const TraceBuilder::Context& context) {
    if (const auto* block = builder_.at(address); block != nullptr && block->live) {
      return fail_at_byte(
          event.position,
          fmt::format("allocates at address {:#x}, where the block of event {} is live", address,
                      block->origin));
    }
    builder_.allocate(address, bytes, context);
    note_address(address);
    return {};
  }

  Status free(const Container& event, std::uint64_t address, std::uint64_t bytes,
              const TraceBuilder::Context& context, bool completed) {
    const auto* block = builder_.at(address);
    if (block == nullptr) {
      begin_with(address, bytes, context);
    } else if (!block->live) {
      return fail_at_byte(
          event.position,
          fmt::format("frees the block at address {:#x}, which was freed before", address));
    } else if (block->bytes != bytes) {
      return fail_at_byte(event.position,
                          fmt::format("frees {} bytes at address {:#x}, where the block has {}",
                                      bytes, address, block->bytes));
    }
    if (completed) {
      pending_.erase(address);
      builder_.free(address, context);
      note_address(address);
    } else if (!pending_.insert(address).second) {
      return fail_at_byte(event.position,
                          fmt::format("frees the block at address {:#x}, whose free was requested "
                                      "before",
                                      address));
    }
    return {};
  }

  Status import_final_state() {
    for (const Segment& segment : segments_) {
      if (segment.device != device_) continue;
      if (auto status = import_segment(*segment.record); !status) return status;
    }
    return {};
  }

  Status import_segment(const Container& segment) {
    const auto segment_address = fields_.number(segment, "address");
    if (!segment_address) return tl::unexpected(segment_address.error());
    const auto stream = fields_.number_or(segment, "stream", 0);
    if (!stream) return tl::unexpected(stream.error());
    if (layout_ != nullptr) {
      if (auto status = place(segment, *segment_address, *stream); !status) return status;
    }
    const auto blocks_field = fields_.require(segment, "blocks");
    if (!blocks_field) return tl::unexpected(blocks_field.error());
    const auto blocks = fields_.visit(**blocks_field, Kind::list, "a segment's list of blocks");
    if (!blocks) return tl::unexpected(blocks.error());

    std::uint64_t next_address =
        *segment_address;  // older blocks do not state theirs: they lie side by side
    for (const Value& item : (*blocks)->items) {
      const auto record = fields_.visit(item, Kind::dictionary, "a block");
      if (!record) return tl::unexpected(record.error());
      const auto address = fields_.number_or(**record, "address", next_address);
      if (!address) return tl::unexpected(address.error());
      const auto size = fields_.number(**record, "size");
      if (!size) return tl::unexpected(size.error());
      if (auto status = import_block(**record, *address, *size, *stream); !status) return status;
      next_address = *address + *size;
    }
    return {};
  }

  Status import_block(const Container& block, std::uint64_t address, std::uint64_t size,
                      std::uint64_t stream) {
    const auto state = fields_.text(block, "state");
    if (!state) return tl::unexpected(state.error());
    if (*state == "inactive") return {};
    // The last two are one state, which PyTorch's code and its documentation call differently.
    if (*state != "active_allocated" && *state != "active_pending_free" &&
        *state != "active_awaiting_free") {
      return fail_at_byte(block.position,
                          fmt::format("a block's state is {}; inactive, active_allocated, "
                                      "active_pending_free or active_awaiting_free is expected",
                                      in_quotes(*state)));
    }
    const auto bytes = requested_bytes(block, size);
    if (!bytes) return tl::unexpected(bytes.error());
    if (!active_.insert(address).second) {
      return fail_at_byte(block.position,
                          fmt::format("a second block is active at address {:#x}", address));
    }
    const auto* known = builder_.at(address);
    if (known == nullptr) {
      begin_with(address, *bytes, {0, 0, stream, 0});
    } else if (!known->live) {
      return fail_at_byte(
          block.position,
          fmt::format("a block is active at address {:#x}, but by the events it was "
                      "freed",
                      address));
    } else if (known->bytes != *bytes) {
      return fail_at_byte(block.position,
                          fmt::format("a block of {} bytes is active at address {:#x}, but by the "
                                      "events it has {}",
                                      *bytes, address, known->bytes));
    }
    if (layout_ != nullptr) {
      if (const auto* active = builder_.at(address))
        layout_->final_grants.push_back({active->id, size});
    }
    return {};
  }

  /// What the program asked for: stated in itself, in the newest entry of older snapshots'
  /// histories, or lost.
  Result<std::uint64_t> requested_bytes(const Container& block, std::uint64_t size) {
    const Value* const history = fields_.find(block, "history");
    if (history == nullptr) return fields_.number_or(block, "requested_size", size);
    return fields_.visit(*history, Kind::list, "a block's history")
        .and_then([&](const Container* entries) {
          if (entries->items.empty()) return fields_.number_or(block, "requested_size", size);
          return fields_
              .visit(entries->items.front(), Kind::dictionary, "an entry of a block's history")
              .and_then([&](const Container* entry) {
                return fields_.number_or(*entry, "real_size", size);
              });
        });
  }

  const Value& root_;
  Fields fields_;
  const ReadOptions& options_;
  StatedLayout* const layout_;
  std::vector<Segment> segments_;
  std::vector<const Container*> traces_;
  std::uint64_t device_ = 0;
  TraceBuilder builder_;
  // Addresses whose free was requested and has not completed.
  UntrustedSet pending_;
  UntrustedSet active_;  // addresses of blocks that are active in the end
};

}  // namespace

ReadResult import_pytorch(std::string_view bytes, const ReadOptions& options) {
  const auto document = pickle::load(bytes, options.max_bytes);
  if (!document) return tl::unexpected(document.error());
  return PytorchImporter(*document, options, nullptr).import();
}

tl::expected<Recording, TraceError> import_pytorch_recording(std::string_view bytes,
                                                             const ReadOptions& options) {
  const auto document = pickle::load(bytes, options.max_bytes);
  if (!document) return tl::unexpected(document.error());
  StatedLayout stated;
  return PytorchImporter(*document, options, &stated)
      .import()
      .and_then([&](Trace trace) -> tl::expected<Recording, TraceError> {
        auto layout = infer_layout(trace, std::move(stated));
        if (!layout) return tl::unexpected(std::move(layout).error());
        return Recording{.trace = std::move(trace), .layout = std::move(*layout)};
      });
}

}  // namespace cistern::detail
