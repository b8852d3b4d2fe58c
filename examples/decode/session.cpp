#include "session.hpp"

#include <span>
#include <utility>
#include <vector>

namespace decode {

Session::Session(const Job& job, Resource& memory)
    : memory_(memory),
      operators_(make_operators(memory)),
      config_(job.config),
      weights_(make_weights(*operators_, job.config, job.seed)),
      decoder_(*operators_, config_, weights_),
      last_(operators_->tokens(1)) {
  const std::vector<Token> drawn = make_prompt(config_, job.prompt_length, job.seed);
  const Tokens prompt = operators_->tokens(drawn.size());
  operators_->upload(drawn, prompt);
  if (drawn.size() > 1) decoder_.read(prompt, drawn.size() - 1);
  operators_->upload(std::span(drawn).last(1), last_);
}

Turn Session::turn() {
  memory_.cycle();
  const Tensor hidden = decoder_.read(last_, 1);
  Tensor logits = decoder_.logits(hidden);
  last_ = operators_->largest(logits);
  const Token token = operators_->download_first(last_);
  const Tensor probabilities = operators_->softmax(logits);
  return Turn{.token = token,
              .probability = operators_->download(probabilities)[token],
              .logits = std::move(logits)};
}

}  // namespace decode
