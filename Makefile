# Makefile - builds, installs and uninstalls the library, its Lua modules and the command line.
# What is built, and how, is said in premake5.lua; `make -C build help` lists other configurations.
#
#   make                 the library alone, build/release/libsamebits.so; needs a C compiler only
#   make check           everything, and every spec: tools/test
#   make install         under PREFIX; LIBDIR, INCLUDEDIR, LUADIR, BINDIR, MANDIR, DOCDIR name parts
#   make uninstall       with the same variables
#   make clean
#
# DESTDIR goes before all of them, for packages. Paths may hold spaces.
PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
LUADIR = $(PREFIX)/share/lua/5.1
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/samebits
PKGCONFIGDIR = $(LIBDIR)/pkgconfig
# Where LuaRocks wants libraries that Lua loads.
LUALIBDIR =

HEADERS = samebits.h samebits_conventional.h
ABI := $(shell sed -n 's/^.define SB_ABI //p' src/samebits.h)

# The shell reads paths from its environment, where no character of theirs means anything to it.
export PREFIX LIBDIR INCLUDEDIR LUADIR BINDIR MANDIR DOCDIR PKGCONFIGDIR LUALIBDIR DESTDIR

.RECIPEPREFIX = >
.DELETE_ON_ERROR:

all: samebits

samebits:
> $(MAKE) -C build samebits

check:
> tools/test

install: absolute samebits install-library install-lua install-docs
> @echo "installed: $$DESTDIR$$BINDIR/samebits, $$DESTDIR$$LIBDIR/libsamebits.so and so on"
> @echo 'C programs may need ldconfig to find a library that is new'

# Recipes change folders, and samebits.pc keeps paths.
absolute:
> @for p in "$${DESTDIR:-/}" "$$PREFIX" "$$LIBDIR" "$$INCLUDEDIR" "$$LUADIR" "$$BINDIR" "$$MANDIR" \
>   "$$DOCDIR" "$$PKGCONFIGDIR"; do \
>   case $$p in \
>   /*) ;; \
>   *) echo "make: '$$p' has to be an absolute path" >&2; exit 1 ;; \
>   esac; \
> done

install-library: absolute samebits
> @install -D -m 755 build/release/libsamebits.so.$(ABI) "$$DESTDIR$$LIBDIR/libsamebits.so.$(ABI)"
> @ln -sf libsamebits.so.$(ABI) "$$DESTDIR$$LIBDIR/libsamebits.so"
> @set -e; for h in $(HEADERS); do install -D -m 644 "src/$$h" "$$DESTDIR$$INCLUDEDIR/$$h"; done
> @mkdir -p "$$DESTDIR$$PKGCONFIGDIR"
> @sh tools/pkgconfig.sh >"$$DESTDIR$$PKGCONFIGDIR/samebits.pc"

# The folder of modules is made anew: an older release's would be found as well.
install-modules: absolute
> @set -e; rm -rf "$$DESTDIR$$LUADIR/samebits"; cd lua; \
> find . -name '*.lua' -exec sh -ec 'for f; do \
>   install -D -m 644 "$$f" "$$DESTDIR$$LUADIR/$$f"; done' sh {} +; \
> install -d "$$DESTDIR$$LUADIR/samebits/vectors"; \
> install -m 644 ../spec/vectors/*.txt "$$DESTDIR$$LUADIR/samebits/vectors"; \
> install -D -m 755 ../bin/samebits "$$DESTDIR$$BINDIR/samebits"

# The link beside the Lua modules leads them to the library wherever LIBDIR is.
install-lua: install-library install-modules
> @ln -srf "$$DESTDIR$$LIBDIR/libsamebits.so" "$$DESTDIR$$LUADIR/samebits/libsamebits.so"

install-docs: absolute
> @install -D -m 644 docs/samebits.1 "$$DESTDIR$$MANDIR/man1/samebits.1"
> @install -d "$$DESTDIR$$DOCDIR/docs"
> @install -m 644 README.md CHANGELOG.md LICENSE "$$DESTDIR$$DOCDIR"
> @install -m 644 docs/*.md "$$DESTDIR$$DOCDIR/docs"

# For LuaRocks, which says where: modules, command line, and the library where Lua looks for it.
install-rock: install-modules
> @install -D -m 755 build/release/libsamebits.so "$$LUALIBDIR/samebits/libsamebits.so"

# Folders that others share are left, even if they are empty.
uninstall: absolute
> @for h in $(HEADERS); do rm -f "$$DESTDIR$$INCLUDEDIR/$$h"; done
> @rm -f "$$DESTDIR$$LIBDIR/libsamebits.so" "$$DESTDIR$$LIBDIR/libsamebits.so.$(ABI)"
> @rm -f "$$DESTDIR$$PKGCONFIGDIR/samebits.pc" "$$DESTDIR$$LUADIR/samebits.lua"
> @rm -f "$$DESTDIR$$BINDIR/samebits" "$$DESTDIR$$MANDIR/man1/samebits.1"
> @rm -rf "$$DESTDIR$$LUADIR/samebits" "$$DESTDIR$$DOCDIR"
> @echo "removed: $$DESTDIR$$BINDIR/samebits, $$DESTDIR$$LIBDIR/libsamebits.so and so on"

clean:
> $(MAKE) -C build clean

.PHONY: all samebits check absolute install install-library install-modules install-lua \
        install-docs install-rock uninstall clean
