// The allocators of others that come as shared libraries. None is linked, for each would take the
// place of malloc in the whole command: who measures one opens it, in a process of its own.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include <tl/expected.hpp>

namespace cistern::command {

struct PeerLibrary {
  const char* subject;  // as results call it
  const char* package;  // of Debian, which brings it
  const char* library;
  const char* allocate;  // the names of its malloc and its free
  const char* free;
};

inline constexpr std::array<PeerLibrary, 4> peer_libraries{{
    {"peer:jemalloc", "libjemalloc2", "libjemalloc.so.2", "malloc", "free"},
    {"peer:tcmalloc", "libtcmalloc-minimal4", "libtcmalloc_minimal.so.4", "tc_malloc", "tc_free"},
    {"peer:mimalloc", "libmimalloc2.0", "libmimalloc.so.2", "mi_malloc", "mi_free"},
    {"peer:tbb", "libtbbmalloc2", "libtbbmalloc.so.2", "scalable_malloc", "scalable_free"},
}};

struct PeerFunctions {
  void* (*allocate)(std::size_t) = nullptr;
  void (*free)(void*) = nullptr;
};

/// Opens a peer for the rest of the process's life. The error is the loader's.
[[nodiscard]] tl::expected<PeerFunctions, std::string> open_peer(const PeerLibrary& peer);

/// Those of `peer_libraries` that cannot be opened here; none is open afterwards.
[[nodiscard]] std::vector<PeerLibrary> missing_peers();

/// Starts the command anew if libraries could not be opened in it that need their thread-local
/// memory set aside at the start of the process (jemalloc does). Does nothing the second time.
void make_room_for_peers();

}  // namespace cistern::command
