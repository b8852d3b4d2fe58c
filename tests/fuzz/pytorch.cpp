// Feeds anything to the reader of pickles and the importer of PyTorch's snapshots behind it.
#include "fuzz/trace_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cistern::fuzz::try_reader(cistern::detail::import_pytorch, cistern::fuzz::view(data, size));
  return 0;
}
