#!/bin/sh
# pkgconfig.sh - prints samebits.pc, for the PREFIX, LIBDIR and INCLUDEDIR of the environment.
set -eu
cd "$(dirname "$0")/.."

# Folders under the prefix are given relative to it, so that pkg-config can relocate them.
from_prefix() {
  case $1 in
  "$PREFIX"/*) printf '${prefix}%s' "${1#"$PREFIX"}" ;;
  *) printf %s "$1" ;;
  esac
}

version=$(sed -n 's/^#define SB_VERSION "\(.*\)"$/\1/p' src/samebits.h)
[ -n "$version" ]
cat <<END
prefix=$PREFIX
libdir=$(from_prefix "$LIBDIR")
includedir=$(from_prefix "$INCLUDEDIR")

Name: samebits
Description: Token logprobs from logits, the same bits every time
Version: $version
Cflags: -I"\${includedir}"
Libs: -L"\${libdir}" -lsamebits
END
