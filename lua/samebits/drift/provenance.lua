--- What a reader of a report needs to make it again: when, where and by what it was made, and of
-- which files.

local ffi = require "ffi"
local posix = require "samebits.io.posix"
local sha256 = require "samebits.io.sha256"
local version = require "samebits.lib"

local M = {}

--- Files of up to this size are hashed, unless a caller says otherwise.
M.HASHED = 16 * 2 ^ 20

local function first_line(path)
  local file = io.open(path, "rb")
  local line = file and file:read "*l"
  if file then file:close() end
  return line
end

-- The system's name, its release and the machine's name; nil where /proc does not tell.
local function system()
  local kernel, release = first_line "/proc/sys/kernel/ostype",
                          first_line "/proc/sys/kernel/osrelease"
  return kernel and release and ("%s %s, %s"):format(kernel, release, ffi.arch) or
         ("%s, %s"):format(ffi.os, ffi.arch), first_line "/proc/sys/kernel/hostname"
end

--- Returns `date` (UTC), `host`, `system`, `luajit`, `backend`, the `version` and the `numerics` of
-- the library, and the `command` that was given.
-- @tparam table ctx the context that computed the logprobs
-- @tparam[opt] string command
function M.made(ctx, command)
  local name, host = system()
  return {
    date = os.date "!%Y-%m-%dT%H:%M:%SZ", host = host, system = name, luajit = jit.version,
    backend = ("%s, %s"):format(ctx.device, ctx:describe()), version = version.version,
    numerics = version.numerics, command = command,
  }
end

-- The digest of a file that is mapped. Its pages are given back on the way.
local function digest(source)
  return source:read_all(function(p, size)
    return sha256.hex(p, size, size > 0 and posix.forget or nil)
  end)
end

--- Returns the files of a comparison in the order in which they were opened, each once: `path`,
-- `size` in bytes, and `sha256` if it is at most `limit` bytes long.
function M.files(opened, limit)
  local out, seen = {}, {}
  for _, source in ipairs(opened) do
    if not seen[source.path] then
      seen[source.path] = true
      out[#out + 1] = { path = source.path, size = source.size,
                        sha256 = source.size <= limit and digest(source) or nil }
    end
  end
  return out
end

return M
