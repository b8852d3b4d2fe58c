// `cistern devices`: the devices there are, and what they can give.
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cistern/core/device.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "command.hpp"
#include "output.hpp"

namespace cistern::command {
namespace {

struct DevicesArguments {
  bool json = false;
};

/// A device, and what only some kinds have to tell.
struct Found {
  std::string stack;
  DeviceLimits limits;
  Json more = Json::object();
};

Found look_at(const CudaFound& device) {
  const std::string stack = fmt::format("cuda(device={})", device.number);
  Json memory{"device"};
  if (device.has_managed) memory.push_back("managed");
  memory.push_back("pinned");
  if (device.has_async) memory.push_back("async");
  return {.stack = stack,
          .limits = open(stack)->device().limits(),
          .more = {{"platform", "CUDA"},
                   {"version", fmt::format("{}.{}", device.driver_version / 1000,
                                           device.driver_version % 1000 / 10)},
                   {"compute_capability", fmt::format("{}.{}", device.compute_capability / 10,
                                                      device.compute_capability % 10)},
                   {"gpu_memory_bytes", device.total_memory},
                   {"memory", memory},
                   {"virtual_memory", device.has_virtual_memory},
                   {"concurrent_managed_access", device.has_concurrent_managed}}};
}

struct Absent {
  std::string kind;
  std::string reason;
};

struct All {
  std::vector<Found> found;
  std::vector<Absent> absent;
};

Found look_at(const OpenClFound& device) {
  const std::string stack =
      fmt::format("opencl(platform={}, device={})", device.platform_number, device.device_number);
  const Stack opened = open(stack);
  Json memory{"buffer"};
  if (device.has_coarse_svm || device.has_fine_svm) memory.push_back("svm");
  memory.push_back("pinned");
  return {.stack = stack,
          .limits = opened->device().limits(),
          .more = {{"platform", device.platform},
                   {"version", device.version},
                   {"memory", memory},
                   {"shares_host_memory", device.is_unified},
                   {"fine_grained_svm", device.has_fine_svm},
                   {"buffers_use_host_pointer",
                    dynamic_cast<const OpenClDevice&>(opened->device()).uses_host_pointer()}}};
}

All find_devices() {
  All all;
  for (const char* stack : {"host", "simulated"}) {
    all.found.push_back(
        {.stack = stack, .limits = open(stack)->device().limits(), .more = Json::object()});
  }
  const auto add = [&](const char* kind, auto&& find) {
    std::string why_none;
    for (const auto& device : find(why_none)) {
      try {
        all.found.push_back(look_at(device));
      } catch (const std::runtime_error& error) {
        all.absent.push_back({.kind = kind, .reason = device.name + ": " + error.what()});
      }
    }
    if (!why_none.empty()) all.absent.push_back({.kind = kind, .reason = why_none});
  };
  add("cuda", find_cuda_devices);
  add("opencl", find_opencl_devices);
  return all;
}

Json as_json(const Found& device) {
  const DeviceLimits& limits = device.limits;
  Json json{{"kind", limits.kind},
            {"name", limits.name},
            {"stack", device.stack},
            {"total_memory_bytes", limits.total_memory},
            {"max_allocation_bytes", limits.max_allocation},
            {"alignment", limits.alignment},
            {"max_alignment", limits.max_alignment},
            {"granularity", limits.granularity},
            {"memory_is_address", limits.memory_is_address},
            {"host_addressable", limits.host_addressable}};
  json.update(device.more);
  return json;
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
  if (device.more.empty()) return;
  const Json& more = device.more;
  fmt::print("  platform     {}, {}\n", more["platform"].get<std::string>(),
             more["version"].get<std::string>());
  fmt::print("  memory kinds {}\n", more["memory"].dump());
  const auto say = [&](const char* key, const char* yes, const char* no) {
    if (more.contains(key)) fmt::print("  {}\n", more[key].get<bool>() ? yes : no);
  };
  say("buffers_use_host_pointer", "buffers with CL_MEM_ALLOC_HOST_PTR",
      "buffers without CL_MEM_ALLOC_HOST_PTR");
  say("virtual_memory", "maps pages behind addresses", "maps no pages behind addresses");
}

void run_devices(const DevicesArguments& arguments) {
  const All all = find_devices();
  if (arguments.json) {
    Json document{{"devices", Json::array()}, {"absent", Json::array()}};
    for (const Found& device : all.found)
      document["devices"].push_back(as_json(device));
    for (const Absent& absent : all.absent)
      document["absent"].push_back({{"kind", absent.kind}, {"reason", absent.reason}});
    return print_json(document);
  }
  for (const Found& device : all.found)
    print(device);
  for (const Absent& absent : all.absent)
    fmt::print("no {} device: {}\n", absent.kind, absent.reason);
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
