#!/usr/bin/env bash
# Installs a build into a fresh prefix, then builds and runs a project outside the tree against it.
# usage: test.sh CMAKE BUILD_FOLDER COMPILER
set -euo pipefail
cmake=$1 build=$2 compiler=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/prefix" >"$work/install.log"
"$cmake" -S "$here/consumer" -B "$work/build" -G Ninja \
  -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release
"$cmake" --build "$work/build"
"$work/build/consumer"
"$work/prefix/bin/cistern" --help >/dev/null
if [[ -f $build/libcistern_torch.so ]]; then
  library=$(find "$work/prefix" -path '*/lib*/libcistern_torch.so')
  [[ -n $library ]]
  names=$(nm --dynamic --defined-only "$library" | grep -v ' A ')
  grep -F cistern_torch_malloc <<<"$names" >/dev/null
  if grep -v ' T cistern_torch_' <<<"$names"; then
    echo "$library shows other names than its own" >&2
    exit 1
  fi
fi
