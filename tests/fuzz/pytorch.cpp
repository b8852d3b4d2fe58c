// Feeds anything to the reader of pickles and the importer of PyTorch's snapshots behind it, with
// and without what they say of addresses.
#include "fuzz/trace_reader.hpp"

namespace {

void try_recording(std::string_view bytes) {
  cistern::ReadOptions options;
  options.max_bytes = 1 << 20;
  const auto recording = cistern::detail::import_pytorch_recording(bytes, options);
  if (!recording) return;
  const auto& [trace, layout] = *recording;
  cistern::fuzz::require(layout.addresses.size() == trace.events.size());
  cistern::fuzz::require(layout.initial_blocks.size() == trace.initial_blocks.size());
  for (std::size_t index = 0; index < layout.initial_blocks.size(); ++index) {
    cistern::fuzz::require(layout.initial_blocks[index].granted >=
                           trace.initial_blocks[index].bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = cistern::fuzz::view(data, size);
  cistern::fuzz::try_reader(cistern::detail::import_pytorch, bytes);
  try_recording(bytes);
  return 0;
}
