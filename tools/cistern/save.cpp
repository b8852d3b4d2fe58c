#include "save.hpp"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include <fmt/format.h>

#include "command.hpp"

namespace cistern::command {

void save(const std::string& file, std::string_view text) {
  const auto failure = [&] {
    return JobFailed(
        fmt::format("{}: cannot be written: {}", file, std::generic_category().message(errno)));
  };
  if (file == "-") {  // main sees to its being written out
    std::fwrite(text.data(), 1, text.size(), stdout);
    return;
  }
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(file.c_str(), "wb"), &std::fclose);
  if (out == nullptr || std::fwrite(text.data(), 1, text.size(), out.get()) != text.size() ||
      std::fclose(out.release()) != 0) {
    throw failure();
  }
}

}  // namespace cistern::command
