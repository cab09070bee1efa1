#!/bin/sh
# check_symbols.sh NM ARCHIVE...: fails if an archive defines a weak or unique symbol, or anything but
# the table of its instruction set.
set -eu
nm="$1"
shift
status=0
for archive in "$@"; do
  symbols=$("$nm" --defined-only --extern-only --demangle "$archive" | sed -n 's/^[0-9a-f]* //p')
  extra=$(printf '%s\n' "$symbols" | grep -v '^[RD] tessera::kernels::cpu::[a-z0-9]*::k\(Tile\)\{0,1\}Ops$' || true)
  if [ -n "$extra" ]; then
    echo "$archive defines shared symbols:"
    echo "$extra"
    status=1
  fi
  if [ -z "$symbols" ]; then
    echo "$archive defines no table"
    status=1
  fi
done
exit $status
