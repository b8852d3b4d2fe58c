// Feeds anything to the importer of Chrome traces.
#include "fuzz/trace_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cistern::fuzz::try_reader(cistern::detail::import_chrome, cistern::fuzz::view(data, size));
  return 0;
}
