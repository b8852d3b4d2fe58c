// Feeds anything to the reader of tables of lifetimes, which must refuse it or return what a
// planner may rely on; and what it reads is read again from a table of it.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "fuzz/trace_reader.hpp"
#include "trace/read_lifetimes.hpp"

namespace {

using cistern::fuzz::require;

/// The id stands within, as a carriage return at its end would be taken for one of the line's.
std::string table(const cistern::Lifetimes& lifetimes) {
  std::string csv = "size,upper,id,lower,alignment\n";
  for (std::size_t place = 0; place < lifetimes.buffers.size(); ++place) {
    const cistern::Lifetime& buffer = lifetimes.buffers[place];
    csv += std::to_string(buffer.bytes) + ',' + std::to_string(buffer.upper) + ',' +
           lifetimes.ids[place] + ',' + std::to_string(buffer.lower) + ',' +
           std::to_string(buffer.alignment) + '\n';
  }
  return csv;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = cistern::fuzz::view(data, size);
  (void)cistern::detail::looks_like_lifetimes(bytes);
  const auto lifetimes = cistern::detail::read_lifetimes(bytes);
  if (!lifetimes) {
    require(!lifetimes.error().message.empty() && lifetimes.error().message.size() < 1000);
    return 0;
  }
  const auto& [name, source, ids, buffers] = *lifetimes;
  require(ids.size() == buffers.size());
  require(std::set<std::string>(ids.begin(), ids.end()).size() == ids.size());
  for (const cistern::Lifetime& buffer : buffers)
    require(buffer.lower <= buffer.upper && std::has_single_bit(buffer.alignment));
  const auto again = cistern::detail::read_lifetimes(table(*lifetimes));
  require(again && again->ids == ids && again->buffers == buffers);
  return 0;
}
