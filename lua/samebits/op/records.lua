--- Records of shards in their Lua form: a table of two uint8 tensors, `states` [.., 32] and
-- `targets` [.., 8], which match sb_state_record and sb_target_record of samebits.h byte by byte.
-- Records that entropy can be computed from have `moments` [.., 64] (sb_moment_record) instead of
-- states. The dimensions in front of a record's bytes are the rows' shape.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe

local M = {}

local SIZES = { states = ffi.sizeof "sb_state_record", moments = ffi.sizeof "sb_moment_record",
                targets = ffi.sizeof "sb_target_record" }

-- The library reads records at any 8-byte boundary.
local BOUNDARY = 8

--- The two kinds of records: the names of their tensors, with the tensor that holds sums first, and
-- the library's constant.
M.SUMS = { "states", "targets", constant = C.SB_SUMS }
M.MOMENTS = { "moments", "targets", constant = C.SB_MOMENTS }

--- The kind of records that a table holds.
function M.kind_of(records) return records.moments ~= nil and M.MOMENTS or M.SUMS end

--- The bytes of the record that holds sums.
function M.size_of(kind) return SIZES[kind[1]] end

-- The library's struct of records of a kind, with arrays at these addresses.
local function struct(kind, states, targets)
  return ffi.new("sb_records", ffi.sizeof "sb_records", kind.constant, ffi.cast("void *", states),
                 ffi.cast("sb_target_record *", targets))
end

--- Converts records to the library's struct.
function M.struct(records)
  local kind = M.kind_of(records)
  return struct(kind, records[kind[1]].ptr, records.targets.ptr)
end

--- The same, for records of a kind that a call does not touch.
function M.untouched(kind) return struct(kind, call.ANYWHERE, call.ANYWHERE) end

--- Makes new records of a kind, for rows of a shape, that a call writes.
function M.make(at, kind, shape)
  local records = {}
  for _, name in ipairs(kind) do
    local t = try(tensor.empty(layout.appended(shape, SIZES[name]), "uint8", at.device))
    records[name] = at:hold(t)
  end
  return records
end

-- The shape in front of a record's bytes.
local function front(t)
  local shape = {}
  for i = 1, t.ndim - 1 do shape[i] = t.shape[i] end
  return shape
end

--- Checks records on a device and returns the shape of their rows. what: for messages.
function M.check(what, records, device)
  if type(records) ~= "table" or tensor.is_tensor(records) then
    raise("%s: expected records { states, targets }, got %s", what, describe(records))
  end
  local kind = M.kind_of(records)
  if kind == M.MOMENTS and records.states ~= nil then
    raise("%s: records have states or moments, not both", what)
  end
  for _, name in ipairs(kind) do
    local t = records[name]
    if not tensor.is_tensor(t) then
      raise("%s: %s: expected a tensor, got %s", what, name, describe(t))
    end
    if t.dtype ~= "uint8" or t.ndim < 1 or t.shape[t.ndim] ~= SIZES[name] then
      raise("%s: %s: %s, expected uint8 [.., %d]", what, name, describe(t), SIZES[name])
    end
    if t.device ~= device then
      raise("%s: %s: the tensor is on %s, the context is on %s", what, name, t.device, device)
    end
  end
  local sums = records[kind[1]]
  local shape = front(sums)
  if not layout.same(shape, front(records.targets)) then
    raise("%s: %s %s and targets %s are of other rows", what, kind[1], layout.text(sums.shape),
          layout.text(records.targets.shape))
  end
  return shape
end

--- Returns checked records in a form that a call can read, because tensors from files may be at any
-- address.
function M.in_place(at, records)
  local out = {}
  for _, name in ipairs(M.kind_of(records)) do
    out[name] = at:in_place(name, records[name], BOUNDARY)
  end
  return out
end

--- Checks records that a call replaces in place and returns the number of their rows.
function M.check_writable(at, records)
  local rows = layout.numel(M.check(at.what, records, at.device))
  for _, name in ipairs(M.kind_of(records)) do
    local t = records[name]
    if not call.is_in_place(t, BOUNDARY) then
      raise("%s: %s: strides %s, or no 8-byte boundary: records are replaced where they are, " ..
            "and must be contiguous", at.what, name, layout.text(t.strides))
    end
    at:hold(t)
  end
  return rows
end

return M
