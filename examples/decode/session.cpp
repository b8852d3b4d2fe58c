#include "session.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace decode {

Session::Session(const Job& job, Resource& memory)
    : memory_(memory),
      config_(job.config),
      weights_(make_weights(memory, job.config, job.seed)),
      decoder_(memory, config_, weights_),
      last_(memory, 1, 1) {
  const std::vector<Token> drawn = make_prompt(config_, job.prompt_length, job.seed);
  Tokens prompt(memory, 1, drawn.size());
  std::ranges::copy(drawn, prompt.values().begin());
  const auto [before, last] = std::pair(prompt.values().first(drawn.size() - 1), drawn.back());
  if (!before.empty()) decoder_.read(before);
  last_.values()[0] = last;
}

Turn Session::turn() {
  memory_.cycle();
  const Tensor hidden = decoder_.read(last_.values());
  Tensor logits = decoder_.logits(hidden);
  last_ = largest(memory_, logits);
  const Token token = last_.values()[0];
  const Tensor probabilities = softmax(memory_, logits);
  return Turn{
      .token = token, .probability = probabilities.values()[token], .logits = std::move(logits)};
}

}  // namespace decode
