# Makefile - builds, installs and uninstalls the library, its Lua modules and the command line.
# What is built, and how, is said in premake5.lua; `make -C build help` lists other configurations.
#
#   make                 the library alone, build/release/libsamebits.so; needs a C compiler only
#   make check           everything, and every spec: tools/test
#   make install         under PREFIX; LIBDIR, INCLUDEDIR, LUADIR, BINDIR, MANDIR, DOCDIR name parts
#   make uninstall       with the same variables: removes what make install has made, nothing else
#   make dist            the source tarball of a release, build/samebits-VERSION.tar.gz: tools/dist
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

# The shell reads paths from its environment, where no character of theirs means anything to it.
export PREFIX LIBDIR INCLUDEDIR LUADIR BINDIR MANDIR DOCDIR PKGCONFIGDIR LUALIBDIR DESTDIR

.RECIPEPREFIX = >
.DELETE_ON_ERROR:

all: samebits

samebits:
> $(MAKE) -C build samebits

check:
> tools/test

# What is put where, and taken away, is said in tools/place.sh.
install: samebits
> @sh tools/place.sh install

# For LuaRocks, which says where: modules, command line, and the library where Lua looks for it.
install-rock:
> @sh tools/place.sh rock

uninstall:
> @sh tools/place.sh uninstall

dist:
> @tools/dist

clean:
> $(MAKE) -C build clean

.PHONY: all samebits check install install-rock uninstall dist clean
