# setup.sh - sourced by the tools that need a build: goes to the checkout, installs what a fresh
# Debian lacks (as root, or through sudo) and builds. Nothing is done that is done already.
set -eu
cd "$(dirname "$0")/.."
. tools/install.sh

if command -v dpkg-query >/dev/null 2>&1; then
  install_packages gcc libc6-dev make luajit lua-busted lua-dkjson lua-argparse || {
    echo "setup: $why" >&2
    exit 1
  }
else
  # Without dpkg only the programs can be looked for.
  for p in cc make luajit busted; do
    command -v $p >/dev/null 2>&1 || {
      echo "setup: please install $p (with LuaJIT: busted, dkjson, argparse)" >&2
      exit 1
    }
  done
fi

# Machine code of the two instruction sets that the kernels know, and PTX for later GPUs: a third of
# the time of a plain make, which compiles for every SM. Projects share sources, so that make names
# files twice: what it says is shown only where something is wrong.
echo 'building; build/make.log tells how far it is' >&2
CUDA_ARCH=${CUDA_ARCH:-80,90} make -s -C build -j"$(nproc 2>/dev/null || echo 1)" \
  >build/make.log 2>&1 || {
  cat build/make.log >&2
  echo 'setup: the build has failed' >&2
  exit 1
}
