#include "cistern/trace/generate.hpp"

#include <stdexcept>

#include <fmt/format.h>

#include "trace/programs.hpp"

namespace cistern {
namespace {

struct KnownProgram {
  ProgramKind kind;
  std::string_view name;
  void (*write)(const GenerateOptions&, detail::Script&);
};

constexpr KnownProgram known_programs[] = {
    {ProgramKind::pipeline, "pipeline", detail::write_pipeline},
    {ProgramKind::prefetch, "prefetch", detail::write_prefetch},
    {ProgramKind::side, "side", detail::write_side},
};

const KnownProgram& known(ProgramKind kind) noexcept {
  return known_programs[static_cast<std::size_t>(kind)];
}

void require_count(std::uint64_t count, std::uint64_t most, const char* what) {
  if (count == 0 || count > most) {
    throw std::invalid_argument(
        fmt::format("a generated program has 1 to {} {}, not {}", most, what, count));
  }
}

}  // namespace

Trace generate(const GenerateOptions& options) {
  require_count(options.streams, GenerateOptions::most_streams, "streams");
  require_count(options.turns, GenerateOptions::most_turns, "turns");
  detail::Script script;
  known(options.kind).write(options, script);
  return script.finish(name_of(options.kind));
}

std::string_view name_of(ProgramKind kind) noexcept {
  return known(kind).name;
}

std::optional<ProgramKind> program_kind(std::string_view name) noexcept {
  for (const KnownProgram& program : known_programs) {
    if (program.name == name) return program.kind;
  }
  return std::nullopt;
}

}  // namespace cistern
