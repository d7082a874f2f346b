#!/usr/bin/env luajit
-- gen_cdef.lua - writes lua/samebits/cdef.lua from src/samebits.h.
--
--     luajit tools/gen_cdef.lua            write the file
--     luajit tools/gen_cdef.lua --check    write nothing; exit 1 if the file would change
--
-- The declarations are the text between the two "ffi" marks of the header, without comments and
-- without SB_API. The constants are the few macros that Lua needs.

local CONSTANTS = { "SB_VERSION", "SB_ABI", "SB_NUMERICS", "SB_MAX_VOCAB", "SB_MAX_TOPK",
                    "SB_MAX_WIDTH", "SB_DRAW_PROGRESS", "SB_IGNORE_INDEX" }

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
local header_path, lua_path = root .. "/src/samebits.h", root .. "/lua/samebits/cdef.lua"

local function fail(format, ...)
  io.stderr:write("gen_cdef: ", format:format(...), "\n")
  os.exit(1)
end

local function read(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("*a")
  file:close()
  return text
end

local function constant(header, name)
  local value = header:match("#define " .. name .. "[ \t]+([^\n]*)")
  if not value then fail("%s: no #define %s", header_path, name) end
  value = value:gsub("/%*.-%*/", ""):gsub("%s+$", "")
  value = value:match("^%((.*)%)$") or value
  if not (tonumber(value) or value:match('^"[^"\\]*"$')) then
    fail("%s: %s is neither a number nor a plain string: %s", header_path, name, value)
  end
  return value
end

local function declarations(header)
  local text = header:match("/%* ffi begin %*/\n(.-)/%* ffi end %*/")
  if not text then fail("%s: the ffi marks are missing", header_path) end
  text = text:gsub("/%*.-%*/", ""):gsub("//[^\n]*", ""):gsub("SB_API%s+", "")
  text = text:gsub("[ \t]+\n", "\n"):gsub("\n\n\n+", "\n\n"):gsub("^\n+", ""):gsub("\n+$", "")
  if text:find("#", 1, true) then fail("%s: a preprocessor line between the ffi marks",
                                       header_path) end
  return text
end

local function generate(header)
  local out = {
    "-- Generated from src/samebits.h by tools/gen_cdef.lua: do not edit.",
    "",
    'local ffi = require "ffi"',
    "",
    "-- A struct may be declared only once in a Lua state, this file may be run again.",
    'if not pcall(ffi.typeof, "sb_context") then',
    "  ffi.cdef [[",
    declarations(header),
    "]]",
    "end",
    "",
    "return {",
  }
  for _, name in ipairs(CONSTANTS) do
    out[#out + 1] = ("  %s = %s,"):format(name, constant(header, name))
  end
  out[#out + 1] = "}\n"
  return table.concat(out, "\n")
end

local header, why = read(header_path)
if not header then fail("%s", why) end
local text = generate(header)

if arg[1] == "--check" then
  if read(lua_path) ~= text then
    fail("lua/samebits/cdef.lua is stale: run luajit tools/gen_cdef.lua")
  end
elseif arg[1] then
  fail("unknown argument '%s' (usage: gen_cdef.lua [--check])", arg[1])
elseif read(lua_path) ~= text then
  local temporary = lua_path .. ".tmp"
  local file = assert(io.open(temporary, "wb"))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(temporary, lua_path))
end
