// Feeds anything to the reader of the text form.
#include "fuzz/trace_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cistern::fuzz::try_reader(cistern::detail::read_text, cistern::fuzz::view(data, size));
  return 0;
}
