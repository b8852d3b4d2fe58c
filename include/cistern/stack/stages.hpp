// The one table of stages, as documentation: the parser makes stacks from the same entries and
// `cistern stages` prints these. Constant and thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cistern {

/// What `cistern stages` says of one parameter.
struct ParameterDoc {
  std::string name;
  std::string type;           // "size", "size or percent or none", "one of evict, reject", ...
  std::string default_value;  // as it would be written; "required" where there is none
  std::string bounds;         // "at least 1", "from 0% to 100%"; may be empty
  std::string text;           // one line
};

struct StageDoc {
  std::string name;
  std::string kind;  // "adaptor", "pool", "device", "recipe"
  std::string text;  // one line; a recipe's says whose behaviour it is
  std::vector<ParameterDoc> parameters;
  std::string expansion;  // a recipe's stages; empty for others
};

/// Every stage and recipe, adaptors first, devices and recipes last.
[[nodiscard]] std::vector<StageDoc> stage_docs();

}  // namespace cistern
