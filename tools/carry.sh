#!/bin/sh
# carry.sh FOLDER - unpacks LuaJIT, busted and the Lua modules that the specs need from Debian
# packages into FOLDER, without installing anything. The folder can then be carried to a machine
# that has no access to a package registry:
#
#     FOLDER/luaenv luajit FOLDER/usr/bin/busted spec/lua/bits_spec.lua
#
# luaenv runs a command with the LuaJIT and the modules of the folder first in its paths. The folder
# may be moved. The target machine must have sh, libc (2.34 or later), libm and libgcc_s; the
# machine that runs carry.sh must have apt-get and dpkg.
set -eu
[ $# -eq 1 ] || {
  echo "usage: $0 FOLDER" >&2
  exit 2
}
out=$1
[ ! -e "$out" ] || {
  echo "carry: $out exists" >&2
  exit 1
}

packages="luajit libluajit-5.1-2 libluajit-5.1-common lua-busted lua-cliargs lua-dkjson lua-luassert
  lua-say lua-mediator lua-penlight lua-filesystem lua-system lua-term lua-lpeg lua-argparse"

# Builds the folder under a temporary name beside its final one until it is complete.
mkdir -p "$(dirname "$out")"
made=$(mktemp -d "$(dirname "$out")/.carry.XXXXXX")
trap 'rm -rf "$made"' EXIT
mkdir "$made/debs" "$made/tree"
# shellcheck disable=SC2086 # a list of words
(cd "$made/debs" && apt-get -qq -o APT::Sandbox::User=root download $packages) || {
  echo "carry: the packages cannot be downloaded (try apt-get update)" >&2
  exit 1
}
for deb in "$made"/debs/*.deb; do dpkg -x "$deb" "$made/tree"; done
rm -rf "$made/tree/usr/share/doc" "$made/tree/usr/share/man" "$made/tree/usr/share/lintian"

cat >"$made/tree/luaenv" <<'END'
#!/bin/sh
# luaenv COMMAND... - runs a command with this folder's LuaJIT and Lua modules first.
here=$(cd "$(dirname "$0")" && pwd)
shared=$here/usr/share/lua/5.1
for library in "$here"/usr/lib/*/lua/5.1; do :; done
for jit in "$here"/usr/share/luajit-*; do :; done
export PATH="$here/usr/bin:$PATH"
export LD_LIBRARY_PATH="${library%/lua/5.1}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LUA_PATH="${LUA_PATH:+$LUA_PATH;}./?.lua;$shared/?.lua;$shared/?/init.lua;$jit/?.lua"
export LUA_CPATH="${LUA_CPATH:+$LUA_CPATH;}./?.so;$library/?.so"
exec "$@"
END
chmod 755 "$made/tree" "$made/tree/luaenv"
mv "$made/tree" "$out"
