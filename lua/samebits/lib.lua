--- Finds and loads libsamebits.so, and refuses one that was built for another ABI.
--
-- Looked at, in this order; the first file that exists is the one, and if it cannot be loaded that
-- is an error rather than a reason to look further:
--
-- 1. the file that the environment variable SAMEBITS_LIB names;
-- 2. libsamebits.so beside the Lua modules, or on package.cpath as samebits/libsamebits.so;
-- 3. build/release/libsamebits.so of the checkout that these Lua files are part of;
-- 4. the system's loader (LD_LIBRARY_PATH, ld.so.conf).

local ffi = require "ffi"
local constants = require "samebits.cdef"

local FILE = "libsamebits.so"

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The folder of this file: lua/samebits in a checkout.
local function folder()
  local source = debug.getinfo(1, "S").source
  return source:match("^@(.*)/[^/]*$") or "."
end

-- A list of { path, what it is }, in the order of search.
local function candidates()
  local here = folder()
  local root = here:match "^(.*)/lua/samebits$" or here .. "/../.."
  local list = {
    { here .. "/" .. FILE, "beside the Lua modules" },
    { package.searchpath("samebits.libsamebits", package.cpath), "package.cpath" },
    { root .. "/build/release/" .. FILE, "the checkout's build" },
  }
  if not list[2][1] then table.remove(list, 2) end
  return list
end

local function load_library()
  local function load(path)
    local ok, library = pcall(ffi.load, path)
    if ok then return library, path end
    error(("samebits: cannot load %s: %s"):format(path, library), 0)
  end

  local named = os.getenv "SAMEBITS_LIB"
  if named and named ~= "" then return load(named) end

  local looked = {}
  for _, candidate in ipairs(candidates()) do
    local path, what = candidate[1], candidate[2]
    if exists(path) then return load(path) end
    looked[#looked + 1] = ("%s (%s)"):format(path, what)
  end
  local ok, library = pcall(ffi.load, FILE)
  if ok then return library, FILE end
  looked[#looked + 1] = ("%s (the system's loader)"):format(FILE)
  error("samebits: libsamebits.so was not found; looked at " .. table.concat(looked, ", ") ..
        "; build it with 'make -C build', or set SAMEBITS_LIB to it", 0)
end

local C, path = load_library()

local function call(name, ...)
  local ok, result = pcall(function(...) return C[name](...) end, ...)
  if not ok then error(("samebits: %s is not a samebits library: %s"):format(path, result), 0) end
  return result
end

local abi = call "sb_abi"
if abi ~= constants.SB_ABI then
  error(("samebits: %s has ABI %d, these Lua files are for ABI %d: install a pair that belongs " ..
         "together"):format(path, abi, constants.SB_ABI), 0)
end

return {
  C = C,
  path = path,
  constants = constants,
  abi = abi,
  version = ffi.string(call "sb_version"),
  numerics = call "sb_numerics",
}
