# Sourced by the other scripts: goes to the repository's root and says what they share.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi
cores=$(nproc)

# Put before a program: sanitizers cannot place their shadow memory where the kernel randomises addresses widely.
fixed_addresses=()
# shellcheck disable=SC2034
if setarch --addr-no-randomize true 2>/dev/null; then
  fixed_addresses=(setarch --addr-no-randomize)
fi

# The groups of packages that a preset needs.
groups_of() {
  case $1 in
    fuzz | *clang*) echo build clang ;;
    *) echo build ;;
  esac
}

# configure PRESET: installs what is missing and configures build/PRESET; its output is shown when it fails.
configure() {
  local preset=$1 log=build/$1.configure.log
  # shellcheck disable=SC2046
  scripts/setup $(groups_of "$preset")
  mkdir -p build
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  configure "$preset"
  local quiet=()
  if [[ ! -t 1 ]]; then
    quiet=(-- --quiet)
    echo "Building ${*:-all} into build/$preset"
  fi
  cmake --build --preset "$preset" --parallel "$cores" ${1:+--target "$@"} "${quiet[@]}"
}
