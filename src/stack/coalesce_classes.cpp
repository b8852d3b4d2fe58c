#include "stack/coalesce_classes.hpp"

#include <algorithm>
#include <functional>

#include "cistern/stack/units.hpp"

namespace cistern::language {
namespace {

std::size_t at_or(const std::vector<std::size_t>& list, std::size_t index, std::size_t otherwise) {
  return index < list.size() ? list[index] : otherwise;
}

}  // namespace

Coalesce::Options CoalesceOptions::resolved() const {
  Coalesce::Options options = *this;
  options.classes.clear();
  for (std::size_t i = 0; i <= bounds.size(); ++i) {
    const std::size_t region = at_or(regions, i, 0);
    options.classes.push_back({.up_to = at_or(bounds, i, unbounded),
                               .region = region,
                               .region_for = at_or(regions_for, i, region / 2),
                               .least_rest = at_or(rests, i, 1)});
  }
  return options;
}

Type<std::vector<std::size_t>> sizes() {
  return {
      .name = "list of sizes",
      .bounds = "",
      .read = [](const Value& value, const Context& context) -> Result<std::vector<std::size_t>> {
        if (value.form != Value::Form::list)
          return not_a(value, "list of sizes", "[64KiB, 1MiB] or none");
        std::vector<std::size_t> list;
        for (const Value& each : value.list) {
          const Result<std::size_t> bytes = size().read(each, context);
          if (!bytes) return tl::unexpected(bytes.error());
          list.push_back(*bytes);
        }
        return list;
      },
      .write =
          [](const std::vector<std::size_t>& list) {
            std::string text;
            for (const std::size_t bytes : list)
              text += (text.empty() ? "" : ", ") + format_size(bytes);
            return "[" + text + "]";
          }};
}

Bound<std::vector<std::size_t>> rising() {
  return {"rising sizes, the first at least 1", [](const std::vector<std::size_t>& list) {
            return (list.empty() || list.front() > 0) &&
                   std::is_sorted(list.begin(), list.end(), std::less_equal<>{});
          }};
}

}  // namespace cistern::language
