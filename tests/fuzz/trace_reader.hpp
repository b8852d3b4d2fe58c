// What the fuzz targets of the trace formats share. Whatever a reader makes of its input, it must
// either refuse it or return a trace that is lawful and that our binary form holds without loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "cistern/trace/check.hpp"
#include "cistern/trace/encode.hpp"
#include "cistern/trace/summary.hpp"
#include "trace/program.hpp"
#include "trace/readers.hpp"

namespace cistern::fuzz {

using Reader = detail::ReadResult (*)(std::string_view, const ReadOptions&);

inline void require(bool holds) {
  if (!holds) std::abort();
}

inline std::string_view view(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline void try_reader(Reader reader, std::string_view bytes) {
  ReadOptions options;
  options.max_bytes = 1 << 20;
  const auto trace = reader(bytes, options);
  if (!trace) {
    require(!trace.error().message.empty());
    return;
  }
  require(check_trace(*trace).has_value());
  require(summarise(*trace).events == trace->events.size());
  for (const detail::Step& step : detail::compile(*trace).steps)
    require(step.kind == detail::Step::Kind::free || step.request().bytes == step.bytes);

  std::vector<std::byte> binary;
  append_file_header(binary);
  append_initial_blocks(trace->initial_blocks, binary);
  append_chunk(trace->events, binary);
  append_end(trace->events.size(), binary);
  const auto again =
      detail::read_binary({reinterpret_cast<const char*>(binary.data()), binary.size()}, {});
  require(again && again->events == trace->events &&
          again->initial_blocks == trace->initial_blocks);
}

}  // namespace cistern::fuzz
