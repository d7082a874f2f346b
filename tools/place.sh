#!/bin/sh
# place.sh install|rock|uninstall - puts the library, the Lua modules, the command line and the docs
# into the folders that the environment names, and takes them away again; see the Makefile.
#
# install keeps a record in LUADIR/samebits/installed, and adds a line before it creates anything.
# Paths are without DESTDIR: "f PATH" stands for a file or a link, "d PATH" for a folder that did
# not exist; a folder precedes its contents. uninstall removes exactly the recorded paths, and
# folders only if they are empty. install starts by doing the same, so that no module of an older
# release remains. LuaRocks (rock) keeps its own list.
set -eu
cd "$(dirname "$0")/.."
umask 022
abi=$(sed -n 's/^#define SB_ABI //p' src/samebits.h)
modules=$LUADIR/samebits
record=$DESTDIR$modules/installed

# samebits.pc and the record store absolute paths, the record one per line.
absolute() {
  for p in "${DESTDIR:-/}" "$PREFIX" "$LIBDIR" "$INCLUDEDIR" "$LUADIR" "$BINDIR" "$MANDIR" \
    "$DOCDIR" "$PKGCONFIGDIR"; do
    case $p in
    *'
'*) echo "make: '$p' has more than one line" >&2; exit 1 ;;
    /*) ;;
    *) echo "make: '$p' has to be an absolute path" >&2; exit 1 ;;
    esac
  done
}

note() { printf '%s\n' "$1" >>"$record"; }

folder() {
  if [ ! -d "$DESTDIR$1" ]; then
    folder "$(dirname "$1")"
    note "d $1"
    mkdir "$DESTDIR$1"
  fi
}

# file MODE SOURCE PATH
file() {
  folder "$(dirname "$3")"
  note "f $3"
  install -m "$1" -T "$2" "$DESTDIR$3"
}

# link TARGET PATH [OPTION OF ln]
link() {
  folder "$(dirname "$2")"
  note "f $2"
  ln -sfT ${3:-} "$1" "$DESTDIR$2"
}

place_library() {
  file 755 "build/release/libsamebits.so.$abi" "$LIBDIR/libsamebits.so.$abi"
  link "libsamebits.so.$abi" "$LIBDIR/libsamebits.so"
  for h in samebits.h samebits_conventional.h; do file 644 "src/$h" "$INCLUDEDIR/$h"; done
  folder "$PKGCONFIGDIR"
  note "f $PKGCONFIGDIR/samebits.pc"
  sh tools/pkgconfig.sh >"$DESTDIR$PKGCONFIGDIR/samebits.pc"
}

place_modules() {
  find lua -name '*.lua' | while IFS= read -r f; do file 644 "$f" "$LUADIR/${f#lua/}"; done
  find types -name '*.lua' | while IFS= read -r f; do file 644 "$f" "$modules/$f"; done
  for f in spec/vectors/*.txt; do file 644 "$f" "$modules/vectors/${f##*/}"; done
  file 755 bin/samebits "$BINDIR/samebits"
}

place_docs() {
  file 644 docs/samebits.1 "$MANDIR/man1/samebits.1"
  for f in README.md CHANGELOG.md LICENSE docs/*.md; do file 644 "$f" "$DOCDIR/$f"; done
}

# Goes from the last line of the record to the first lines, which name the record and its folders.
remove() {
  tac "$record" | while IFS= read -r line; do
    path=$DESTDIR${line#? }
    case $line in
    'f '*) if [ -f "$path" ] || [ -L "$path" ]; then rm -f "$path"; fi ;;
    'd '*) if [ -d "$path" ]; then rmdir --ignore-fail-on-non-empty "$path"; fi ;;
    esac
  done
}

# Starts a new record. Its first lines are the folders that an earlier install made and that others
# now use ($1), then the missing folders above the record, then the record itself.
begin() {
  began=''
  add() { began="$1
$began"; }
  p=$modules
  while [ ! -d "$DESTDIR$p" ] && [ "$p" != / ]; do
    add "d $p"
    p=$(dirname "$p")
  done
  mkdir -p "$DESTDIR$modules"
  printf '%s' "$1$began" >"$record"
  note "f $modules/installed"
}

case $1 in
install)
  absolute
  kept=''
  if [ -f "$record" ]; then
    earlier=$(grep '^d ' "$record" || :)
    remove
    kept=$(printf '%s\n' "$earlier" | while IFS= read -r line; do
      if [ -n "$line" ] && [ -d "$DESTDIR${line#d }" ]; then printf '%s\n' "$line"; fi
    done)
  fi
  begin "${kept:+$kept
}"
  place_library
  place_modules
  # Through this link the modules find the library, wherever LIBDIR is.
  link "$DESTDIR$LIBDIR/libsamebits.so" "$modules/libsamebits.so" -r
  place_docs
  echo "installed: $DESTDIR$BINDIR/samebits, $DESTDIR$LIBDIR/libsamebits.so and so on"
  echo 'C programs may need ldconfig to find a library that is new'
  ;;
rock)
  absolute
  record=/dev/null
  place_modules
  file 755 build/release/libsamebits.so "$LUALIBDIR/samebits/libsamebits.so"
  ;;
uninstall)
  absolute
  if [ ! -f "$record" ]; then
    echo "make: nothing was installed with these variables: there is no $record" >&2
    exit 1
  fi
  remove
  echo "removed: $DESTDIR$BINDIR/samebits, $DESTDIR$LIBDIR/libsamebits.so and so on"
  ;;
esac
