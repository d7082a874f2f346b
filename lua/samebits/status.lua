--- Turns a failed call of the library into misuse, or into nil, a message and a code.

local ffi = require "ffi"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"

local C = lib.C

local M = {}

-- Statuses for wrong arguments of the caller. The other statuses are failures of the environment.
local MISUSE = {
  SB_ERR_ARGUMENT = true, SB_ERR_SHAPE = true, SB_ERR_DTYPE = true, SB_ERR_ID = true,
  SB_ERR_TEMPERATURE = true, SB_ERR_STATE = true, SB_ERR_BUSY = true,
}

--- Raises misuse; returns nil, a message and the status' name for a failure of the environment.
function M.failure(status, message)
  local name = ffi.string(C.sb_status_name(status))
  if message == "" then message = ffi.string(C.sb_status_text(status)) end
  if MISUSE[name] then misuse.raise("%s", message) end
  return nil, message, name
end

--- Returns true, or the failure of a call of this context's.
function M.check(status, handle)
  if status == 0 then return true end
  return M.failure(status, ffi.string(C.sb_last_error(handle)))
end

return M
