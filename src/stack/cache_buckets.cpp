#include "stack/cache_buckets.hpp"

#include <bit>
#include <string>
#include <utility>

namespace cistern::language {
namespace {

// Leaves room for rounding up to any device's granularity.
constexpr std::size_t largest_capacity = std::size_t{1} << 62U;

Result<BucketChoice> read_list(const Value& list, const Context& context) {
  BucketChoice choice{.kind = Buckets::listed, .capacities = {}};
  const Type<std::size_t> capacity = bounded(size(), at_most(largest_capacity));
  std::size_t last = 0;
  for (const Value& value : list.list) {
    const Result<std::size_t> bytes = capacity.read(value, context);
    if (!bytes) return tl::unexpected(bytes.error());
    if (*bytes <= last) {
      return out_of_range(value,
                          choice.capacities.empty() ? "at least 1" : "more than the one before");
    }
    choice.capacities.push_back(*bytes);
    last = *bytes;
  }
  return choice;
}

}  // namespace

Cache::Options CacheOptions::resolved() const {
  Cache::Options options = *this;
  switch (choice.kind) {
    case Buckets::geometric:
      options.buckets = Geometric{.per_doubling = per_doubling};
      break;
    case Buckets::pow2:
      options.buckets = Geometric{.per_doubling = 1};
      break;
    case Buckets::table:
      options.buckets = quadrupling_table();
      break;
    case Buckets::fit:
      options.buckets = Fit{.slack = slack, .slack_bytes = slack_bytes};
      break;
    case Buckets::listed:
      options.buckets = Table{.capacities = choice.capacities};
      break;
  }
  return options;
}

Type<BucketChoice> bucket_choice() {
  Type<Buckets> word = one_of<Buckets>({{"geometric", Buckets::geometric},
                                        {"pow2", Buckets::pow2},
                                        {"table", Buckets::table},
                                        {"fit", Buckets::fit}},
                                       " or a list of sizes such as [4KiB, 1MiB]");
  return {.name = word.name,
          .bounds = "",
          .read = [read = word.read](const Value& value,
                                     const Context& context) -> Result<BucketChoice> {
            if (value.form == Value::Form::list) return read_list(value, context);
            return read(value, context).map([](Buckets kind) {
              return BucketChoice{.kind = kind, .capacities = {}};
            });
          },
          .write = [write = word.write](const BucketChoice& choice) { return write(choice.kind); }};
}

Bound<unsigned> buckets_per_doubling() {
  return {"a power of two from 1 to 64",
          [](const unsigned& value) { return std::has_single_bit(value) && value <= 64; }};
}

}  // namespace cistern::language
