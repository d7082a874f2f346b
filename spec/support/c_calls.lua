--- Calls the public functions as C calls them, without the Lua front end: contexts, structs, and
-- memory that shows whether it was written to.
--
--     local ctx = c_calls.open()
--     local token, out = c_calls.filled("float", 3), c_calls.sized "sb_logprob_out"
--     assert.equal("SB_ERR_NULL", c_calls.name_of(C.sb_logprob(ctx, out, nil, nil)))
--     assert.is_true(c_calls.untouched(token))

local assert = require "luassert"
local ffi = require "ffi"
local samebits = require "samebits"
local C = require("samebits.lib").C

local M = {}

--- The value of every byte of memory that has not been written to.
M.BYTE = 0x55

--- Opens a context of the cpu, which is closed when nothing refers to it; nil if it is refused.
-- Also returns the status, and the place of its handle. why: why_size chars for the reason;
-- optional.
function M.open(options, why, why_size)
  local handle = ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, samebits.abi, "cpu", options, why, why_size or 0)
  return status == 0 and ffi.gc(handle[0], C.sb_close) or nil, status, handle
end

function M.name_of(status) return ffi.string(C.sb_status_name(status)) end
function M.last_error(ctx) return ffi.string(C.sb_last_error(ctx)) end

--- Asserts that a call has returned a status of this name, and that its message has these words.
function M.fails(ctx, name, words, status)
  local message = M.last_error(ctx)
  assert.equal(name, M.name_of(status), message)
  assert.truthy(message:find(words, 1, true), message)
end

--- An array of n elements, none of them written to.
function M.filled(kind, n)
  local array = ffi.new(kind .. "[?]", n)
  ffi.fill(array, ffi.sizeof(array), M.BYTE)
  return array
end

--- Whether all of its elements are still unwritten.
function M.untouched(array)
  local bytes = ffi.cast("uint8_t *", array)
  for i = 0, ffi.sizeof(array) - 1 do
    if bytes[i] ~= M.BYTE then return false end
  end
  return true
end

--- A struct with its size field set and zeros elsewhere.
function M.sized(kind)
  local made = ffi.new(kind)
  made.size = ffi.sizeof(kind)
  return made
end

return M
