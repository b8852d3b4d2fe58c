#include "bench_peers.hpp"

#include <cstdlib>
#include <fstream>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "bench_isolated.hpp"

namespace cistern::command {

tl::expected<PeerFunctions, std::string> open_peer(const PeerLibrary& peer) {
  void* library = dlopen(peer.library, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return tl::unexpected(
        std::string(dlerror()));  // NOLINT(concurrency-mt-unsafe): glibc's is safe
  const PeerFunctions functions{
      .allocate = reinterpret_cast<void* (*)(std::size_t)>(dlsym(library, peer.allocate)),
      .free = reinterpret_cast<void (*)(void*)>(dlsym(library, peer.free))};
  if (functions.allocate == nullptr || functions.free == nullptr) {
    return tl::unexpected(std::string(peer.library) + " has no " + peer.allocate + " and " +
                          peer.free);
  }
  return functions;
}

std::vector<PeerLibrary> missing_peers() {
  std::vector<PeerLibrary> missing;
  for (const PeerLibrary& peer : peer_libraries) {
    if (!holds_isolated([&] { return open_peer(peer).has_value(); })) missing.push_back(peer);
  }
  return missing;
}

// No other thread is there yet.
// NOLINTBEGIN(concurrency-mt-unsafe)
void make_room_for_peers() {
  if (getauxval(AT_SECURE) != 0) return;  // the tunables would be taken away again
  constexpr std::string_view room = "glibc.rtld.optional_static_tls=16384";
  const char* set = std::getenv("GLIBC_TUNABLES");
  std::string tunables = set == nullptr ? "" : set;
  if (tunables.find(room) != std::string::npos) return;
  tunables += (tunables.empty() ? "" : ":") + std::string(room);
  if (setenv("GLIBC_TUNABLES", tunables.c_str(), 1) != 0) return;

  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::list<std::string> texts;  // they stay where they are
  std::vector<char*> words;
  for (std::string text; std::getline(in, text, '\0');)
    words.push_back(texts.emplace_back(text).data());
  if (words.empty()) return;
  words.push_back(nullptr);
  execv("/proc/self/exe", words.data());  // where that fails, some peer is missing
}
// NOLINTEND(concurrency-mt-unsafe)

}  // namespace cistern::command
