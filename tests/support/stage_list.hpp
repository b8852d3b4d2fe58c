// The names that a text may use, as a problem with an unknown one lists them.
#pragma once

#include <string>

#include "cistern/stack/stages.hpp"

namespace cistern::testing {

/// "limit, trace, cache, ..."
inline std::string stage_list() {
  std::string list;
  for (const StageDoc& doc : stage_docs())
    list += (list.empty() ? "" : ", ") + doc.name;
  return list;
}

}  // namespace cistern::testing
