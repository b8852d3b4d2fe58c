#include "stack/parse.hpp"

#include <string>
#include <utility>

#include "stack/wording.hpp"

namespace cistern::language {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '+' || c == '.' || c == '%';
}

bool is_mark(char c) {
  return std::string_view(">()[],=\"").find(c) != std::string_view::npos;
}

/// A recursive descent with one function for each rule of the grammar. `at_` always stands at the
/// start of a token or at the end of the text: whoever takes a token skips the space behind it.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) { skip_space(); }

  Result<StackSyntax> whole_text() {
    if (at_end())
      return problem({at_, 0}, "the text is empty; write a stack, for example: cache > host");
    Result<StackSyntax> stages = stack();
    if (stages && !at_end()) return expected("'>' or the end");
    return stages;
  }

 private:
  Result<StackSyntax> stack() {
    StackSyntax stages;
    do {
      if (stages.size() == most_stages) {
        return problem(here(), "a stack has at most " + std::to_string(most_stages) + " stages");
      }
      Result<StageSyntax> next = stage();
      if (!next) return problem_of(next);
      stages.push_back(std::move(*next));
    } while (take('>'));
    return stages;
  }

  Result<StageSyntax> stage() {
    if (!at_word()) return expected("a stage");
    StageSyntax stage;
    stage.name = word(stage.span);
    stage.whole = stage.span;
    if (peek() != '(') return stage;

    const Result<void> entered = enter();
    if (!entered) return tl::unexpected(entered.error());
    const Span opening = here();
    take('(');
    if (!take(')')) {
      do {
        Result<Argument> next = argument();
        if (!next) return problem_of(next);
        stage.arguments.push_back(std::move(*next));
      } while (take(','));
      if (!take(')')) return unclosed(opening, ')');
    }
    stage.whole.length = end_of_token_ - stage.whole.position;
    --depth_;
    return stage;
  }

  Result<Argument> argument() {
    Argument argument;
    if (at_word()) {
      const std::size_t start = at_;
      std::string key = word(argument.key_span);
      if (take('=')) {
        argument.key = std::move(key);
      } else {
        at_ = start;  // it was the start of a value
      }
    }
    Result<Value> read = value();
    if (!read) return problem_of(read);
    argument.value = std::move(*read);
    return argument;
  }

  Result<Value> value() {
    if (peek() == '"') return quoted_text();
    if (peek() == '[') return list();
    if (!at_word()) return expected("a value");

    Value value;
    const std::size_t start = at_;
    value.text = word(value.span);
    if (peek() != '(' && peek() != '>') return value;

    at_ = start;
    Result<StackSyntax> stages = stack();
    if (!stages) return problem_of(stages);
    value.form = Value::Form::stack;
    value.span = {start, end_of_token_ - start};
    value.text.clear();
    value.stack = std::move(*stages);
    return value;
  }

  Result<Value> list() {
    const Result<void> entered = enter();
    if (!entered) return tl::unexpected(entered.error());
    const Span opening = here();
    take('[');
    Value list;
    list.form = Value::Form::list;
    do {
      Result<Value> next = value();
      if (!next) return problem_of(next);
      list.list.push_back(std::move(*next));
    } while (take(','));
    if (!take(']')) return unclosed(opening, ']');
    list.span = {opening.position, end_of_token_ - opening.position};
    --depth_;
    return list;
  }

  Result<Value> quoted_text() {
    Value value;
    value.form = Value::Form::text;
    const std::size_t start = at_++;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\0') return problem({at_, 1}, "a text cannot hold the byte 0");
      if (text_[at_] == '\\') {
        const char escaped = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
        if (escaped != '"' && escaped != '\\') {
          return problem({at_, 1}, R"(within quotes a backslash is written \\ and a quote \")");
        }
        ++at_;
      }
      value.text += text_[at_++];
    }
    if (at_ == text_.size()) {
      return problem({start, at_ - start}, "the text that begins here lacks its closing '\"'");
    }
    end_token(at_ + 1);
    value.span = {start, end_of_token_ - start};
    return value;
  }

  // --- tokens ---

  [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
  [[nodiscard]] char peek() const { return at_end() ? '\0' : text_[at_]; }
  [[nodiscard]] bool at_word() const { return is_word(peek()); }
  [[nodiscard]] std::size_t word_end() const {
    std::size_t end = at_;
    while (end < text_.size() && is_word(text_[end]))
      ++end;
    return end;
  }

  /// The token that stands next; empty at the end of the text.
  [[nodiscard]] Span here() const {
    if (at_end()) return {at_, 0};
    return {at_, at_word() ? word_end() - at_ : 1};
  }

  std::string word(Span& span) {
    span = here();
    end_token(at_ + span.length);
    return std::string(text_.substr(span.position, span.length));
  }

  bool take(char mark) {
    if (peek() != mark || at_end()) return false;
    end_token(at_ + 1);
    return true;
  }

  void end_token(std::size_t end) {
    at_ = end_of_token_ = end;
    skip_space();
  }

  void skip_space() {
    while (!at_end() && is_space(text_[at_]))
      ++at_;
  }

  // --- problems ---

  [[nodiscard]] Result<void> enter() {
    if (++depth_ <= deepest_nesting) return {};
    return problem(here(), "nested too deeply: at most " + std::to_string(deepest_nesting) +
                               " parentheses and brackets may be open");
  }

  [[nodiscard]] tl::unexpected<Problem> unclosed(Span opening, char closing) const {
    if (!at_end()) return expected("',' or " + character(closing));
    return problem(opening, character(text_[opening.position]) +
                                " is never closed: " + character(closing) + " is missing");
  }

  [[nodiscard]] tl::unexpected<Problem> expected(const std::string& what) const {
    if (at_end()) return problem(here(), "expected " + what + ", but the text ends here");
    if (!at_word() && !is_mark(peek())) {
      return problem(here(), "unexpected " + character(peek()) +
                                 "; a path or other text stands in double quotes");
    }
    return problem(here(),
                   "expected " + what + ", found " + in_quotes(text_.substr(at_, here().length)));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t end_of_token_ = 0;  // of the last one taken
  std::size_t depth_ = 0;
};

}  // namespace

Result<StackSyntax> parse(std::string_view text) {
  if (text.size() > longest_text) {
    return problem({longest_text, text.size() - longest_text},
                   "the text is too long: at most " + std::to_string(longest_text) + " bytes");
  }
  return Parser(text).whole_text();
}

}  // namespace cistern::language
