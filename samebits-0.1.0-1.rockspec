-- luarocks --lua-version 5.1 make          from a checkout; needs LuaJIT, a C compiler and make
rockspec_format = "3.0"
package = "samebits"
version = "0.1.0-1"
source = {
  -- Only `luarocks make`, in a checkout, is meant: there is no release to download yet.
  url = "git+file://.",
}
description = {
  summary = "Token logprobs from logits, the same bits every time",
  detailed = "A C library with a LuaJIT front end. The bits of a logprob depend on its row's " ..
             "logits, its id and its temperature; not on batch, layout, threads, instruction " ..
             "set or GPU. Saving .safetensors wants dkjson, the command line argparse as well.",
  license = "MIT",
}
dependencies = { "lua == 5.1" } -- LuaJIT, which LuaRocks takes for a Lua 5.1
supported_platforms = { "linux" }
build = {
  type = "make",
  build_variables = { CFLAGS = "$(CFLAGS)" },
  build_target = "samebits",
  install_target = "install-rock",
  install_variables = {
    LUADIR = "$(LUADIR)",
    LUALIBDIR = "$(LIBDIR)",
    BINDIR = "$(BINDIR)",
  },
}
-- The command line finds LuaJIT and its modules by itself.
deploy = { wrap_bin_scripts = false }
test = { type = "command", command = "tools/test" }
