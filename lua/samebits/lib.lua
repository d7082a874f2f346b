--- Finds and loads libsamebits.so, and refuses one that was built for another ABI.
--
-- It looks in these places, in this order, and takes the first file that exists. If that file
-- cannot be loaded, this is an error and the search does not continue.
--
-- 1. libsamebits.so beside the Lua modules, where `make install` leaves a link;
-- 2. the build of the checkout that these Lua files are part of, build/release/libsamebits.so
--    (the environment variable SB_BUILD names another configuration than release);
-- 3. samebits/libsamebits.so on package.cpath, where LuaRocks puts it;
-- 4. the file that the environment variable SAMEBITS_LIB names;
-- 5. the system's loader (LD_LIBRARY_PATH, ld.so.conf), for this ABI.

local ffi = require "ffi"
local constants = require "samebits.cdef"

local FILE = "libsamebits.so"
local SONAME = FILE .. "." .. constants.SB_ABI

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

local function set(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

-- The files to try before the system's loader, each with its description. A path that is not known
-- is false.
local function candidates()
  local here = folder()
  local root = here:match "^(.*)/lua/samebits$" or here .. "/../.."
  return {
    { here .. "/" .. FILE, "beside the Lua modules" },
    { ("%s/build/%s/%s"):format(root, set "SB_BUILD" or "release", FILE), "the checkout's build" },
    { package.searchpath("samebits.libsamebits", package.cpath) or false,
      "samebits/libsamebits.so on package.cpath" },
    { set "SAMEBITS_LIB" or false, "SAMEBITS_LIB" },
  }
end

local function load_library()
  local function load(path)
    local ok, library = pcall(ffi.load, path)
    if ok then return library, path end
    error(("samebits: cannot load %s: %s"):format(path, library), 0)
  end

  local looked = {}
  for _, candidate in ipairs(candidates()) do
    local path, what = candidate[1], candidate[2]
    -- A file named by SAMEBITS_LIB was requested, so its absence is an error, too.
    if path and (what == "SAMEBITS_LIB" or exists(path)) then return load(path) end
    looked[#looked + 1] = path and ("%s (%s)"):format(path, what) or
                          what .. (what == "SAMEBITS_LIB" and " (not set)" or "")
  end
  local ok, library = pcall(ffi.load, SONAME)
  if ok then return library, SONAME end
  looked[#looked + 1] = ("%s (the system's loader)"):format(SONAME)
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
