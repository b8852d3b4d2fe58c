#include "stack/recipes.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "cistern/stack/units.hpp"
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
                          quoted(text) + "; it must be a positive number of GiB, such as 4 or 0.5");
  }
  return netcl(format_size(*bytes));
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
       .expansion = "coalesce(classes=[1MiB], regions=[2MiB, 20MiB], regions_for=[2MiB, 10MiB], "
                    "rests=[512, 1048577], granule=512, region_step=2MiB, streams=separate, "
                    "borrow=false, idle_ratio=none)"},
      {.name = "cupy",
       .text = "the memory pool of CuPy",
       .expansion = "coalesce(classes=none, regions=none, granule=512, streams=separate, "
                    "idle_ratio=none)"},
      {.name = "rmm_pool",
       .text = "the pool_memory_resource of RMM, without an initial size",
       .expansion = "coalesce(classes=none, regions=none, granule=256, growth=doubling, "
                    "idle_ratio=none)"},
      {.name = "bfc",
       .text = "the best-fit allocator of XLA and TensorFlow, growing on demand",
       .expansion = "coalesce(classes=none, regions=[2MiB], regions_for=[2MiB], rests=[128MiB], "
                    "rest_ratio=1, granule=256, growth=doubling, streams=separate, "
                    "idle_ratio=none)"},
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
