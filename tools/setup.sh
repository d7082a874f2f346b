# setup.sh - sourced by tools/test, tools/demo and tools/asan: goes to the checkout, installs what a
# fresh Debian lacks (as root, or through sudo) and builds. Nothing is done that is done already.
set -eu
cd "$(dirname "$0")/.."

packages="gcc libc6-dev make luajit lua-busted lua-dkjson lua-argparse"

# What is not there yet. Without dpkg only the programs can be looked for.
missing=
if command -v dpkg-query >/dev/null 2>&1; then
  for p in $packages; do
    [ "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" = 'install ok installed' ] ||
      missing="$missing $p"
  done
else
  for p in cc make luajit busted; do
    command -v $p >/dev/null 2>&1 || missing="$missing $p"
  done
fi

if [ -n "$missing" ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install:$missing (with LuaJIT: busted, dkjson, argparse)" >&2
    exit 1
  fi
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
      echo "setup: needs root or sudo to install:$missing" >&2
      exit 1
    }
    as_root=sudo
  fi
  echo "setup: installing$missing" >&2
  {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
    $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends $missing
  } >"${TMPDIR:-/tmp}/samebits-setup.log" 2>&1 || {
    cat "${TMPDIR:-/tmp}/samebits-setup.log" >&2
    exit 1
  }
fi

make -s -C build -j"$(nproc 2>/dev/null || echo 1)" >&2
