#!/usr/bin/env bash
# The first C++ block of a README must be, line by line, the program that is compiled and run.
# usage: readme_example.sh README PROGRAM
set -euo pipefail
readme=$1 program=$2

shown=$(awk '/^```cpp$/ { inside = 1; next } /^```$/ && inside { exit } inside' "$readme")
if ! diff -u --label "$readme" --label "$program" <(echo "$shown") "$program"; then
  echo "The C++ example in $readme differs from $program." >&2
  exit 1
fi
