// `cistern devices`: the devices there are, and what they can give.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cistern/core/device.hpp"
#include "cistern/stack/stack.hpp"
#include "command.hpp"
#include "output.hpp"

namespace cistern::command {
namespace {

struct DevicesArguments {
  bool json = false;
};

struct Found {
  std::string stack;
  DeviceLimits limits;
};

std::vector<Found> find_devices() {
  std::vector<Found> found;
  for (const char* stack : {"host", "simulated"}) {
    found.push_back({.stack = stack, .limits = open(stack)->device().limits()});
  }
  return found;
}

Json as_json(const Found& device) {
  const DeviceLimits& limits = device.limits;
  return {{"kind", limits.kind},
          {"name", limits.name},
          {"stack", device.stack},
          {"total_memory_bytes", limits.total_memory},
          {"max_allocation_bytes", limits.max_allocation},
          {"alignment", limits.alignment},
          {"max_alignment", limits.max_alignment},
          {"granularity", limits.granularity},
          {"memory_is_address", limits.memory_is_address},
          {"host_addressable", limits.host_addressable}};
}

void print(const Found& device) {
  const DeviceLimits& limits = device.limits;
  fmt::print("{} ({})\n", limits.name, device.stack);
  fmt::print("  memory       {} for this process, {} at most in one allocation\n",
             in_units(limits.total_memory), in_units(limits.max_allocation));
  fmt::print("  alignment    {}, up to {} on request\n", in_units(limits.alignment),
             in_units(limits.max_alignment));
  fmt::print("  granularity  {}\n", in_units(limits.granularity));
  fmt::print("  the CPU {} its memory\n",
             limits.host_addressable ? "can address" : "cannot address");
}

void run_devices(const DevicesArguments& arguments) {
  const std::vector<Found> found = find_devices();
  if (arguments.json) {
    Json document{{"devices", Json::array()}};
    for (const Found& device : found)
      document["devices"].push_back(as_json(device));
    return print_json(document);
  }
  for (const Found& device : found)
    print(device);
}

}  // namespace

void add_devices(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<DevicesArguments>();
  CLI::App* command =
      app.add_subcommand("devices", "List the devices there are and what they can give");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer("Example:\n  cistern devices --json");
  command->callback([&job, arguments] { job = [arguments] { run_devices(*arguments); }; });
}

}  // namespace cistern::command
