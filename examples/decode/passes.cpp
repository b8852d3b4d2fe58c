#include "passes.hpp"

#include <bit>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>

#include "cistern/adaptor/recorder.hpp"
#include "cistern/core/measure.hpp"
#include "cistern/stack/stack.hpp"
#include "clocked.hpp"
#include "reference.hpp"

namespace decode {
namespace {

/// FNV-1a, a number at a time. http://www.isthe.com/chongo/tech/comp/fnv/
std::uint64_t fingerprint(const std::vector<float>& logits) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const float value : logits) {
    hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3U;
  }
  return hash;
}

Output take_turns(
    const Job& job, Session& session,
    const std::function<void(const Turn&)>& after = [](const Turn&) {}) {
  Output output;
  output.tokens.reserve(job.tokens);
  output.fingerprints.reserve(job.tokens);
  for (std::size_t i = 0; i < job.tokens; ++i) {
    const Turn turn = session.turn();
    output.tokens.push_back(turn.token);
    output.fingerprints.push_back(fingerprint(session.logits_of(turn)));
    output.mean_log_probability += std::log(static_cast<double>(turn.probability));
    after(turn);
  }
  output.mean_log_probability /= static_cast<double>(job.tokens);
  return output;
}

}  // namespace

Throughput measure_throughput(const Job& job, const std::string& stack) {
  const cistern::Stack memory = cistern::open(stack);
  Session session(job, *memory);
  Throughput result;
  result.parameters = parameters(session.weights());
  cistern::Measure turns(*memory);
  const auto start = std::chrono::steady_clock::now();
  result.output = take_turns(job, session);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.turns = turns.stop();
  result.whole = memory->stats();
  return result;
}

AllocatorTime measure_allocator(const Job& job, const std::string& stack) {
  const auto memory = cistern::make<Clocked>(cistern::open(stack).resource());
  Session session(job, *memory);
  const auto before = memory->spent();
  AllocatorTime result{.output = take_turns(job, session)};
  result.seconds = (memory->spent() - before).count();
  return result;
}

Output record(const Job& job, const std::string& stack, const std::filesystem::path& file) {
  const auto memory = cistern::make<cistern::Recorder>(cistern::open(stack).resource(), file);
  Output output;
  {
    Session session(job, *memory);
    output = take_turns(job, session);
  }
  if (!memory->finish()) throw std::runtime_error("cannot write the trace " + file.string());
  return output;
}

Deviation check(const Job& job, const std::string& stack) {
  const cistern::Stack memory = cistern::open(stack);
  Session session(job, *memory);
  std::vector<std::vector<float>> logits;
  Deviation result;
  const auto keep = [&](const Turn& turn) { logits.push_back(session.logits_of(turn)); };
  result.output = take_turns(job, session, keep);

  std::vector<Token> sequence = make_prompt(job.config, job.prompt_length, job.seed);
  sequence.insert(sequence.end(), result.output.tokens.begin(), result.output.tokens.end() - 1);
  // The same weights where the host can read them.
  const cistern::Stack host = cistern::open("host");
  const std::unique_ptr<Operators> on_host = make_operators(*host);
  const Weights weights = make_weights(*on_host, job.config, job.seed);
  const auto expected = reference_logits(job.config, weights, sequence);
  for (std::size_t turn = 0; turn < job.tokens; ++turn) {
    const std::vector<double>& right = expected[job.prompt_length - 1 + turn];
    for (std::size_t i = 0; i < right.size(); ++i) {
      double apart = std::abs(static_cast<double>(logits[turn][i]) - right[i]);
      if (std::isnan(apart)) apart = std::numeric_limits<double>::infinity();
      if (apart > result.largest) {
        result.largest = apart;
        result.worst = turn;
      }
    }
  }
  return result;
}

}  // namespace decode
