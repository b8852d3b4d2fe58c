// Feeds anything to the reader of the binary form, twice: as it is, and as records under true
// checksums, since a fuzzer does not find those by chance.
#include <span>
#include <string>

#include "fuzz/trace_reader.hpp"
#include "trace/crc32.hpp"

namespace {

/// A file whose records have the kinds, lengths and contents that `bytes` spell out, and all else
/// right.
std::string sealed(std::string_view bytes) {
  std::vector<std::byte> head;
  cistern::append_file_header(head);
  std::string file(reinterpret_cast<const char*>(head.data()), head.size());
  while (bytes.size() >= 2) {
    const auto kind = static_cast<unsigned char>(bytes[0]);
    const auto payload = bytes.substr(2, static_cast<unsigned char>(bytes[1]));
    const std::size_t start = file.size();
    file += "IEZ"[kind % 3];
    file += static_cast<char>(payload.size());
    file.append(3, '\0');
    file += payload;
    const auto checksum = cistern::detail::crc32(std::as_bytes(std::span(file).subspan(start)));
    for (unsigned shift = 0; shift < 32; shift += 8)
      file += static_cast<char>(checksum >> shift);
    bytes.remove_prefix(2 + payload.size());
  }
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = cistern::fuzz::view(data, size);
  cistern::fuzz::try_reader(cistern::detail::read_binary, bytes);
  cistern::fuzz::try_reader(cistern::detail::read_binary, sealed(bytes));
  return 0;
}
