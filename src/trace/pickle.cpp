// The instructions are those of Python's pickletools, protocols 2 to 5, as far as snapshots of
// PyTorch use them.
#include "trace/pickle.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "trace/byte_cursor.hpp"
#include "trace/fail.hpp"

namespace cistern::detail::pickle {
namespace {

enum Opcode : std::uint8_t {
  mark = '(',
  stop = '.',
  none = 'N',
  new_true = 0x88,
  new_false = 0x89,
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  long1 = 0x8a,
  binfloat = 'G',
  binunicode = 'X',
  short_binunicode = 0x8c,
  empty_list = ']',
  append = 'a',
  appends = 'e',
  empty_tuple = ')',
  tuple = 't',
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  empty_dict = '}',
  setitem = 's',
  setitems = 'u',
  binput = 'q',
  long_binput = 'r',
  memoize = 0x94,
  binget = 'h',
  long_binget = 'j',
  proto = 0x80,
  frame = 0x95,
};

struct Refused {
  std::uint8_t code;
  std::string_view name;
  bool runs_code;
};

/// Every other instruction of protocols 0 to 5.
constexpr std::array refused_opcodes{
    Refused{'c', "GLOBAL", true},        Refused{0x93, "STACK_GLOBAL", true},
    Refused{'R', "REDUCE", true},        Refused{'b', "BUILD", true},
    Refused{'i', "INST", true},          Refused{'o', "OBJ", true},
    Refused{0x81, "NEWOBJ", true},       Refused{0x92, "NEWOBJ_EX", true},
    Refused{'P', "PERSID", true},        Refused{'Q', "BINPERSID", true},
    Refused{0x82, "EXT1", true},         Refused{0x83, "EXT2", true},
    Refused{0x84, "EXT4", true},         Refused{'0', "POP", false},
    Refused{'1', "POP_MARK", false},     Refused{'2', "DUP", false},
    Refused{'I', "INT", false},          Refused{'L', "LONG", false},
    Refused{'F', "FLOAT", false},        Refused{'S', "STRING", false},
    Refused{'T', "BINSTRING", false},    Refused{'U', "SHORT_BINSTRING", false},
    Refused{'V', "UNICODE", false},      Refused{0x8d, "BINUNICODE8", false},
    Refused{'B', "BINBYTES", false},     Refused{'C', "SHORT_BINBYTES", false},
    Refused{0x8e, "BINBYTES8", false},   Refused{0x96, "BYTEARRAY8", false},
    Refused{0x97, "NEXT_BUFFER", false}, Refused{0x98, "READONLY_BUFFER", false},
    Refused{0x8b, "LONG4", false},       Refused{'l', "LIST", false},
    Refused{'d', "DICT", false},         Refused{0x8f, "EMPTY_SET", false},
    Refused{0x90, "ADDITEMS", false},    Refused{0x91, "FROZENSET", false},
    Refused{'p', "PUT", false},          Refused{'g', "GET", false},
};

std::string refusal(std::uint8_t code) {
  const std::string shown = code > ' ' && code <= '~' ? fmt::format("'{}'", static_cast<char>(code))
                                                      : fmt::format("0x{:02x}", code);
  for (const Refused& refused : refused_opcodes) {
    if (refused.code != code) continue;
    return fmt::format("opcode {} {}: {}", refused.name, shown,
                       refused.runs_code
                           ? "a pickle with code is refused; a snapshot has only plain data"
                           : "no snapshot uses it, so it is refused");
  }
  return fmt::format("opcode {}: pickles of protocols 2 to 5 have no such opcode", shown);
}

class Machine {
 public:
  Machine(std::string_view bytes, std::uint64_t max_bytes)
      : cursor_(bytes), document_(bytes), budget_(max_bytes) {}

  tl::expected<Document, TraceError> run() {
    while (!stopped_) {
      position_ = cursor_.position();
      if (cursor_.remaining() == 0) return error("the pickle ends without STOP: it was cut short");
      const std::uint8_t code = cursor_.byte();
      problem_ = nullptr;
      if (!execute(code)) return error(refusal(code));
      if (cursor_.failed())
        return error("the pickle ends within this instruction: it was cut short");
      if (problem_ != nullptr) return error(problem_);
      if (used_ > budget_)
        return error("the pickle takes more than max_bytes in memory; a higher one would admit it");
    }
    if (cursor_.remaining() != 0) {
      return fail_at_byte(cursor_.position(), fmt::format("{} bytes follow the end of the pickle",
                                                          cursor_.remaining()));
    }
    return std::move(document_);
  }

 private:
  /// False for an instruction that is not ours. Notes in `problem_` what is wrong with one that is.
  bool execute(std::uint8_t code) {
    switch (code) {
      case proto:
        check_protocol(cursor_.byte());
        break;
      case frame:
        check_frame(cursor_.little_endian<8>());
        break;
      case stop:
        finish();
        break;

      case none:
        push({Kind::none, 0, 0});
        break;
      case new_true:
        push({Kind::boolean, 0, 1});
        break;
      case new_false:
        push({Kind::boolean, 0, 0});
        break;
      case binint1:
        push({Kind::natural, 0, cursor_.byte()});
        break;
      case binint2:
        push({Kind::natural, 0, cursor_.little_endian<2>()});
        break;
      case binint:
        push_integer(cursor_.take(4));
        break;
      case long1:
        push_integer(cursor_.take(cursor_.byte()));
        break;
      case binfloat:
        cursor_.take(8), push({Kind::wide, 0, 0});
        break;
      case short_binunicode:
        push_text(cursor_.byte());
        break;
      case binunicode:
        push_text(cursor_.little_endian<4>());
        break;

      case mark:
        marks_.push_back(stack_.size()), used_ += sizeof(std::size_t);
        break;
      case empty_list:
        push_container(Kind::list, 0);
        break;
      case empty_dict:
        push_container(Kind::dictionary, 0);
        break;
      case empty_tuple:
        push_container(Kind::tuple, 0);
        break;
      case tuple1:
        push_container(Kind::tuple, 1);
        break;
      case tuple2:
        push_container(Kind::tuple, 2);
        break;
      case tuple3:
        push_container(Kind::tuple, 3);
        break;
      case tuple:
        push_container(Kind::tuple, take_mark());
        break;
      case append:
        move_items(Kind::list, 1);
        break;
      case appends:
        move_items(Kind::list, take_mark());
        break;
      case setitem:
        move_items(Kind::dictionary, 2);
        break;
      case setitems:
        move_items(Kind::dictionary, take_mark());
        break;

      case memoize:
        memorise(memo_.size());
        break;
      case binput:
        memorise(cursor_.byte());
        break;
      case long_binput:
        memorise(cursor_.little_endian<4>());
        break;
      case binget:
        recall(cursor_.byte());
        break;
      case long_binget:
        recall(cursor_.little_endian<4>());
        break;
      default:
        return false;
    }
    return true;
  }

  void check_protocol(std::uint8_t protocol) {
    if (protocol < 2 || protocol > 5) problem_ = "this is no protocol from 2 to 5";
  }

  void check_frame(std::uint64_t length) {
    if (length > cursor_.remaining())
      problem_ = "the frame is longer than what is left: the pickle was cut short";
  }

  void finish() {
    stopped_ = true;
    if (available() != 1 || !marks_.empty()) {
      problem_ = "the pickle should leave one value";
    } else {
      document_.root = stack_.back();
    }
  }

  void push(const Value& value) {
    stack_.push_back(value);
    used_ += sizeof(Value);
  }

  /// A little-endian integer in two's complement, of any width.
  void push_integer(std::string_view bytes) {
    const bool negative = !bytes.empty() && static_cast<unsigned char>(bytes.back()) >= 0x80;
    const char filler = negative ? '\xff' : '\0';
    std::uint64_t value = 0;
    for (std::size_t index = 0; index < 8; ++index) {
      const char byte = index < bytes.size() ? bytes[index] : filler;
      value |= std::uint64_t{static_cast<unsigned char>(byte)} << (8 * index);
    }
    const bool fits =
        bytes.size() <= 8 || bytes.find_first_not_of(filler, 8) == std::string_view::npos;
    const bool sign_fits = !negative || value >> 63 != 0;
    if (!fits || !sign_fits) return push({Kind::wide, 0, 0});
    push({negative ? Kind::negative : Kind::natural, 0, value});
  }

  void push_text(std::uint64_t length) {
    const std::uint64_t offset = cursor_.position();
    const std::string_view text = cursor_.take(length);
    push({Kind::text, static_cast<std::uint32_t>(text.size()), offset});
  }

  /// How many values lie above the topmost mark: those below are out of an instruction's reach.
  [[nodiscard]] std::size_t available() const {
    return stack_.size() - (marks_.empty() ? 0 : marks_.back());
  }

  /// Removes the topmost mark; returns how many values lay above it.
  std::size_t take_mark() {
    if (marks_.empty()) {
      problem_ = "no MARK goes before this instruction";
      return 0;
    }
    const std::size_t count = available();
    marks_.pop_back();
    return count;
  }

  void push_container(Kind kind, std::size_t count) {
    if (available() < count) problem_ = "this instruction takes more values than there are";
    if (problem_ != nullptr) return;
    const auto first = stack_.end() - static_cast<std::ptrdiff_t>(count);
    document_.containers.push_back({position_, {first, stack_.end()}});
    used_ += sizeof(Container);
    stack_.erase(first, stack_.end());
    push({kind, 0, document_.containers.size() - 1});
  }

  /// Moves the last `count` values into the container below them.
  void move_items(Kind kind, std::size_t count) {
    if (problem_ == nullptr && available() < count + 1)
      problem_ = "this instruction takes more values than there are";
    if (problem_ != nullptr) return;
    const auto first = stack_.end() - static_cast<std::ptrdiff_t>(count);
    const Value& target = *(first - 1);
    if (target.kind != kind) {
      problem_ = kind == Kind::list ? "items are appended to what is not a list"
                                    : "items are set in what is not a dict";
    } else if (kind == Kind::dictionary && count % 2 != 0) {
      problem_ = "a key has no value";
    } else {
      auto& items = document_.containers[static_cast<std::size_t>(target.payload)].items;
      items.insert(items.end(), first, stack_.end());
      stack_.erase(first, stack_.end());
    }
  }

  // Picklers number what they memorise one by one. A number that skips ahead is refused: it would
  // size the memo.
  void memorise(std::uint64_t index) {
    if (available() == 0) {
      problem_ = "there is no value to memorise";
    } else if (index > memo_.size()) {
      problem_ = "the memo index skips ahead of those before it";
    } else if (index == memo_.size()) {
      memo_.push_back(stack_.back());
      used_ += sizeof(Value);
    } else {
      memo_[static_cast<std::size_t>(index)] = stack_.back();
    }
  }

  void recall(std::uint64_t index) {
    if (index < memo_.size()) {
      push(memo_[static_cast<std::size_t>(index)]);
    } else if (!cursor_.failed()) {
      problem_ = "nothing was memorised under this index";
    }
  }

  [[nodiscard]] Failure error(std::string message) const {
    return fail_at_byte(position_, std::move(message));
  }

  ByteCursor cursor_;
  Document document_;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  std::vector<Value> memo_;
  std::uint64_t budget_;
  std::uint64_t used_ = 0;  // of the budget: what was ever pushed, an upper bound of what is held
  std::uint64_t position_ = 0;
  const char* problem_ = nullptr;
  bool stopped_ = false;
};

}  // namespace

const Value* Document::find(const Container& dictionary, std::string_view key) const {
  // From the back, as a key that is set again replaces the one before.
  for (std::size_t index = dictionary.items.size(); index >= 2; index -= 2) {
    if (text(dictionary.items[index - 2]) == key) return &dictionary.items[index - 1];
  }
  return nullptr;
}

tl::expected<Document, TraceError> load(std::string_view bytes, std::uint64_t max_bytes) {
  return Machine(bytes, max_bytes).run();
}

}  // namespace cistern::detail::pickle
