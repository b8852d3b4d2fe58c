#include "trace/gzip.hpp"

#include <algorithm>
#include <limits>
#include <memory>

#include <fmt/format.h>
#include <zlib.h>

#include "trace/fail.hpp"

namespace cistern::detail {
namespace {

constexpr int gzip_only = 16 + MAX_WBITS;  // zlib's way to ask for gzip's header and checksum
constexpr std::size_t step_bytes = std::size_t{1} << 18;

using Inflater = std::unique_ptr<z_stream, decltype(&inflateEnd)>;
using Deflater = std::unique_ptr<z_stream, decltype(&deflateEnd)>;

/// Moves zlib's input window over `bytes`, whose length may exceed what zlib counts in.
class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}

  void refill(z_stream& stream) {
    if (stream.avail_in != 0) return;
    const std::size_t size =
        std::min<std::size_t>(bytes_.size() - given_, std::numeric_limits<uInt>::max());
    // zlib's interface predates const; it does not write here.
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data() + given_));
    stream.avail_in = static_cast<uInt>(size);
    given_ += size;
  }

  [[nodiscard]] bool exhausted(const z_stream& stream) const {
    return given_ == bytes_.size() && stream.avail_in == 0;
  }

  [[nodiscard]] std::size_t position(const z_stream& stream) const {
    return given_ - stream.avail_in;
  }

 private:
  std::string_view bytes_;
  std::size_t given_ = 0;
};

/// Gives zlib room for one more step behind what `out` holds.
void offer_room(z_stream& stream, std::string& out) {
  const std::size_t used = out.size();
  out.resize(used + step_bytes);
  stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
  stream.avail_out = static_cast<uInt>(step_bytes);
}

void keep_written(const z_stream& stream, std::string& out) {
  out.resize(out.size() - stream.avail_out);
}

}  // namespace

bool is_gzip(std::string_view bytes) {
  return bytes.starts_with("\x1f\x8b");
}

tl::expected<std::string, TraceError> inflate_gzip(std::string_view bytes,
                                                   std::uint64_t max_bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, gzip_only) != Z_OK) return fail("zlib could not start");
  const Inflater owner(&stream, &inflateEnd);
  Input input(bytes);
  std::string out;
  while (true) {
    input.refill(stream);
    offer_room(stream, out);
    const int result = inflate(&stream, Z_NO_FLUSH);
    keep_written(stream, out);
    if (out.size() > max_bytes) {
      return fail(fmt::format(
          "grows beyond {} bytes when decompressed; a higher max_bytes would admit it", max_bytes));
    }
    if (result == Z_STREAM_END) {
      if (input.exhausted(stream)) return out;
      inflateReset(&stream);  // another member follows, as when gzip files are joined
    } else if (result == Z_BUF_ERROR ||
               (result == Z_OK && input.exhausted(stream) && stream.avail_out != 0)) {
      return fail_at_byte(input.position(stream),
                          "the gzip stream is cut short: more compressed bytes should follow");
    } else if (result != Z_OK) {
      return fail_at_byte(input.position(stream),
                          fmt::format("the gzip stream is damaged: {}",
                                      stream.msg != nullptr ? stream.msg : "zlib refuses it"));
    }
  }
}

tl::expected<std::string, TraceError> deflate_gzip(std::string_view bytes) {
  constexpr int default_memory = 8;
  z_stream stream{};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, gzip_only, default_memory,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return fail("zlib could not start");
  }
  const Deflater owner(&stream, &deflateEnd);
  Input input(bytes);
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    input.refill(stream);
    offer_room(stream, out);
    result = deflate(
        &stream, input.position(stream) + stream.avail_in == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    keep_written(stream, out);
  }
  if (result != Z_STREAM_END) return fail("zlib could not compress");
  return out;
}

}  // namespace cistern::detail
