#include "stack/recipes.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "cistern/stack/units.hpp"
#include "stack/bind.hpp"
#include "stack/stage_entry.hpp"
#include "stack/value_type.hpp"
#include "stack/wording.hpp"

namespace cistern::language {
namespace {

constexpr const char* netcl_variable = "NETCL_MAX_CACHED_GB";

std::string netcl(const std::string& max_bytes) {
  return "cache(buckets=table, max_bytes=" + max_bytes +
         ", per_bucket=16, when_full=reject, idle_ratio=none)";
}

/// netcl multiplies what the variable says by 1024^3.
tl::expected<std::string, std::string> netcl_under_environment() {
  const char* const gibibytes = std::getenv(netcl_variable);  // NOLINT(concurrency-mt-unsafe)
  if (gibibytes == nullptr) return netcl("4GiB");
  const std::string text = gibibytes;
  const auto bytes = parse_size(text + "GiB");
  if (!bytes || *bytes == 0) {
    return tl::unexpected(std::string("the environment variable ") + netcl_variable + " is " +
                          in_quotes(text) +
                          "; it must be a positive number of GiB, such as 4 or 0.5");
  }
  return netcl(format_size(*bytes));
}

// --- tiers ---

enum class Tier : std::uint8_t { a, b, c, bare };

Type<Tier> tier_type() {
  return one_of<Tier>({{"A", Tier::a}, {"B", Tier::b}, {"C", Tier::c}, {"bare", Tier::bare}});
}

ParameterDoc tier_parameter() {
  return {.name = "tier",
          .type = tier_type().name,
          .default_value = "required",
          .bounds = "",
          .text =
              "A joins free neighbours; B also recovers when memory runs out; C has more memory "
              "than there is; bare is the stack below alone"};
}

/// What makes a device give more memory than there is.
struct Oversubscription {
  std::string_view device;
  const char* argument;
};
constexpr Oversubscription oversubscriptions[] = {{.device = "host", .argument = "memory=file"},
                                                  {.device = "cuda", .argument = "memory=managed"}};

Result<std::string> oversubscribed(const StageSyntax& device) {
  Words able;
  for (const Oversubscription& each : oversubscriptions) {
    if (each.device == device.name) return each.argument;
    able.push_back(each.device);
  }
  return problem(device.span,
                 "tier(C) stands above a device that can give more memory than there is (" +
                     listed(able) + "), which " + in_quotes(device.name) + " cannot");
}

/// `stages` on what stands below, made when it is first needed; what stands below if that fails.
Around deferred_recipe(const std::string& stages, const std::string& device_argument) {
  return {.before = "deferred(" + stages,
          .between = ", otherwise=",
          .behind = ")",
          .device_arguments = {device_argument, ""}};
}

Result<Around> tier(const StageSyntax& recipe, const StageSyntax* device) {
  const ParameterDoc parameter = tier_parameter();
  const Result<Matched> given = match(
      recipe,
      {.name = recipe.name, .kind = "", .text = "", .parameters = {parameter}, .expansion = ""});
  if (!given) return tl::unexpected(given.error());
  if (given->front().empty()) return tl::unexpected(missing(recipe, parameter));
  Result<Tier> which = tier_type().read(given->front().front()->value, Context{});
  if (!which) {
    which.error().message.insert(0, "tier: ");
    return problem_of(which);
  }
  if (device == nullptr) return tl::unexpected(nothing_below(recipe));
  switch (*which) {
    case Tier::a:
      return deferred_recipe("coalesce > ", "");
    case Tier::b:
      return deferred_recipe("retry(attempts=3, window=1s) > coalesce > ", "");
    case Tier::c:
      return oversubscribed(*device).map(
          [](const std::string& argument) { return deferred_recipe("", argument); });
    case Tier::bare:
      break;
  }
  return Around{.before = "", .between = "", .behind = "", .device_arguments = {""}};
}

}  // namespace

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> table = {
      {.name = "netcl",
       .text = "netcl's PersistentBufferPool; NETCL_MAX_CACHED_GB replaces its 4 GiB",
       .expansion = netcl("4GiB"),
       .under_environment = netcl_under_environment},
      {.name = "netcl_unbounded",
       .text = "netcl's BufferPool",
       .expansion = "cache(buckets=pow2, idle_ratio=none)"},
      {.name = "mlx",
       .text = "the buffer cache of MLX on the CPU",
       .expansion =
           "cache(buckets=fit, slack=2, slack_bytes=8KiB, max_bytes=32MiB, idle_ratio=none)"},
      {.name = "pytorch",
       .text = "the CUDA caching allocator of PyTorch, by its defaults",
       .expansion =
           "coalesce(classes=[1MiB], regions=[2MiB, 20MiB], regions_for=[2MiB, 10MiB], "
           "rests=[512, 1048577], granule=512, region_step=2MiB, growth=exact, place=best, "
           "streams=separate, borrow=false, idle_ratio=none)"},
      {.name = "cupy",
       .text = "the memory pool of CuPy",
       .expansion = "coalesce(classes=none, regions=none, granule=512, place=best, "
                    "streams=separate, idle_ratio=none)"},
      {.name = "rmm_pool",
       .text = "the pool_memory_resource of RMM, without an initial size",
       .expansion = "coalesce(classes=none, regions=none, granule=256, growth=doubling, "
                    "place=best, idle_ratio=none)"},
      {.name = "bfc",
       .text = "the best-fit allocator of XLA and TensorFlow, growing on demand",
       .expansion = "coalesce(classes=none, regions=[2MiB], regions_for=[2MiB], rests=[128MiB], "
                    "rest_ratio=1, granule=256, growth=doubling, place=best, streams=separate, "
                    "idle_ratio=none)"},
      {.name = "tier",
       .text = "vibeSpatial's tiers, over any device",
       .expansion =
           "A: deferred(coalesce > X, otherwise=X), where X is what stands to the right; "
           "B: deferred(retry(attempts=3, window=1s) > coalesce > X, otherwise=X); "
           "C: deferred(X on host(memory=file) or cuda(memory=managed), otherwise=X); bare: X",
       .around = tier,
       .parameters = {tier_parameter()}},
  };
  return table;
}

const Recipe* find_recipe(std::string_view name) {
  const std::vector<Recipe>& table = recipes();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Recipe& each) { return each.name == name; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace cistern::language
