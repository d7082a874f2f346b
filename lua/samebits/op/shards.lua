--- Shards of the vocabulary: records of a part of every row's logits, merged and finished. The
-- calls behind `ctx:partial`, `ctx:merge` and `ctx:finish`.
--
-- Records are a table of two uint8 tensors, `states` [.., 32] and `targets` [.., 8]: what
-- sb_state_record and sb_target_record of samebits.h say, byte by byte. Those that entropy can be
-- finished from have `moments` [.., 64] for states: sb_moment_record.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise
local shape_text, same_shape = tensor.layout.text, tensor.layout.same
local appended = tensor.layout.appended

local M = {}

local SIZES = { states = ffi.sizeof "sb_state_record", moments = ffi.sizeof "sb_moment_record",
                targets = ffi.sizeof "sb_target_record" }

-- The two kinds of records: their names, the states' first, and what the library calls them.
local PLAIN = { "states", "targets", kind = C.SB_SUMS }
local MOMENTS = { "moments", "targets", kind = C.SB_MOMENTS }

local function kind_of(records) return records.moments ~= nil and MOMENTS or PLAIN end

-- The library's struct of records of a kind, whose arrays are at these addresses.
local function struct(kind, states, targets)
  return ffi.new("sb_records", ffi.sizeof "sb_records", kind.kind, ffi.cast("void *", states),
                 ffi.cast("sb_target_record *", targets))
end

local function struct_of(records)
  local kind = kind_of(records)
  return struct(kind, records[kind[1]].ptr, records.targets.ptr)
end

-- New records of a kind and a shape, to be written.
local function make(kind, shape, device)
  local records = {}
  for _, name in ipairs(kind) do
    local t, message, code = tensor.empty(appended(shape, SIZES[name]), "uint8", device)
    if not t then return nil, message, code end
    records[name] = t
  end
  return records
end

-- The shape in front of a record's bytes.
local function front(t)
  local shape = {}
  for i = 1, t.ndim - 1 do shape[i] = t.shape[i] end
  return shape
end

-- Checks records and gives their shape. what: for messages.
local function shape_of(what, records, device)
  if type(records) ~= "table" or tensor.is_tensor(records) then
    raise("%s: expected records { states, targets }, got %s", what, tensor.describe(records))
  end
  local kind = kind_of(records)
  if kind == MOMENTS and records.states ~= nil then
    raise("%s: records have states or moments, not both", what)
  end
  for _, name in ipairs(kind) do
    local t = records[name]
    if not tensor.is_tensor(t) then
      raise("%s: %s: expected a tensor, got %s", what, name, tensor.describe(t))
    end
    if t.dtype ~= "uint8" or t.ndim < 1 or t.shape[t.ndim] ~= SIZES[name] then
      raise("%s: %s: %s, expected uint8 [.., %d]", what, name, tensor.describe(t), SIZES[name])
    end
    if t.device ~= device then
      raise("%s: %s: the tensor is on %s, the context is on %s", what, name, t.device, device)
    end
  end
  local sums = records[kind[1]]
  local shape = front(sums)
  if not same_shape(shape, front(records.targets)) then
    raise("%s: %s %s and targets %s are of other rows", what, kind[1], shape_text(sums.shape),
          shape_text(records.targets.shape))
  end
  return shape
end

-- The records with their bytes in order, from any 8-byte boundary: tensors of files may be
-- anywhere. Nil, a message and a code where the device fails.
local function in_place(what, records, stream)
  local out = {}
  for _, name in ipairs(kind_of(records)) do
    local t = records[name]
    local placed = t:is_contiguous() and tonumber(ffi.cast("uintptr_t", t.ptr) % 8) == 0
    local message, code
    if not placed then
      if stream then
        raise("%s: %s: strides %s, or no 8-byte boundary, need a copy: not in a stream", what, name,
              shape_text(t.strides))
      end
      t, message, code = t:clone()
      if not t then return nil, message, code end
    end
    out[name] = t
  end
  return out
end

local function count(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

-- The number of rows of records that are to be written where they are.
local function rows_in_place(what, records, device)
  local rows = count(shape_of(what, records, device))
  for _, name in ipairs(kind_of(records)) do
    local t = records[name]
    if not t:is_contiguous() or tonumber(ffi.cast("uintptr_t", t.ptr) % 8) ~= 0 then
      raise("%s: %s: strides %s, or no 8-byte boundary: records are replaced where they are, " ..
            "and must be contiguous", what, name, shape_text(t.strides))
    end
  end
  return rows
end

--- For exchange.lua: the call on records of a device where they are, and the bytes of workspace that
-- it needs: for a number of rows of the larger kind, or for records.
function M.exchange(ctx, records, comm, opts, launch)
  local rows = rows_in_place("exchange", records, ctx.device)
  local status = C.sb_exchange(ctx.handle, struct_of(records), rows, comm, launch)
  call.hold(ctx, opts, { records[kind_of(records)[1]], records.targets }, {})
  return status_of.check(status, ctx.handle)
end

function M.exchange_needs(ctx, what, rows, comm)
  local kind = MOMENTS
  if type(rows) == "table" then
    kind, rows = kind_of(rows), rows_in_place(what, rows, ctx.device)
  end
  local records = struct(kind, call.ANYWHERE, call.ANYWHERE)
  return call.needed(what, ctx, {}, function(launch)
    return C.sb_exchange(ctx.handle, records, rows, comm, launch)
  end)
end

local LAUNCH_OPTIONS = { split = true, threads = true, check = true, stream = true,
                         workspace = true, cluster = true }

local PARTIAL_OPTIONS, FINISH_OPTIONS = { entropy = true }, { outputs = true, out = true }
for name in pairs(LAUNCH_OPTIONS) do
  PARTIAL_OPTIONS[name], FINISH_OPTIONS[name] = true, true
end

function M.partial(ctx, batch, opts)
  opts = call.options("partial", opts, PARTIAL_OPTIONS)
  if opts.entropy ~= nil and type(opts.entropy) ~= "boolean" then
    raise("partial: entropy: expected a boolean, got %s", tostring(opts.entropy))
  end
  local kind = opts.entropy and MOMENTS or PLAIN
  batch = call.batch("partial", ctx, batch)
  local out, message, code = make(kind, batch.shape, ctx.device)
  if not out then return nil, message, code end
  local status = C.sb_partial(ctx.handle, struct_of(out), batch.c, batch.first, batch.held,
                              call.launch("partial", ctx, opts))
  call.hold(ctx, opts, { batch }, out)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return out
end

-- A list of records as an all-gather would leave them, and their number and shape.
local function gathered(list, device, copy_options)
  local shape, kind
  for s, records in ipairs(list) do
    local what = ("merge: shard %d"):format(s - 1)
    local its = shape_of(what, records, device)
    kind = kind or kind_of(records)
    if kind ~= kind_of(records) then
      raise("%s: records with %s, those of shard 0 have %s", what, kind_of(records)[1], kind[1])
    end
    shape = shape or its
    if not same_shape(its, shape) then
      raise("%s: records of rows %s, those of shard 0 are of rows %s", what, shape_text(its),
            shape_text(shape))
    end
  end
  local together = { #list }
  for i = 1, #shape do together[i + 1] = shape[i] end
  local all, message, code = make(kind, together, device)
  if not all then return nil, message, code end
  for s, records in ipairs(list) do
    for _, name in ipairs(kind) do
      local ok
      ok, message, code = all[name][s - 1]:copy_(records[name], copy_options)
      if not ok then return nil, message, code end
    end
  end
  return all, #list, shape
end

function M.merge(ctx, records, opts)
  opts = call.options("merge", opts, { check = true, stream = true })
  if type(records) ~= "table" or tensor.is_tensor(records) then
    raise("merge: expected a list of records, or gathered ones, got %s", tensor.describe(records))
  end
  local launch = call.launch("merge", ctx, opts)
  local all, shards, shape
  if records.states ~= nil or records.moments ~= nil or records.targets ~= nil then
    local together = shape_of("merge", records, ctx.device)
    if #together < 1 or together[1] < 1 then
      local name = kind_of(records)[1]
      raise("merge: %s %s, expected [S, .., %d] of 1 shard or more", name,
            shape_text(records[name].shape), SIZES[name])
    end
    local message, code
    all, message, code = in_place("merge", records, opts.stream)
    if not all then return nil, message, code end
    shards, shape = together[1], {}
    for i = 2, #together do shape[i - 1] = together[i] end
  elseif #records == 0 then
    raise "merge: an empty list"
  else
    local on_stream = ctx.device ~= "cpu" and opts.stream and { stream = opts.stream } or nil
    all, shards, shape = gathered(records, ctx.device, on_stream)
    if not all then return nil, shards, shape end
  end

  local kind = kind_of(all)
  local out, message, code = make(kind, shape, ctx.device)
  if not out then return nil, message, code end
  local status = C.sb_merge(ctx.handle, struct_of(out), struct_of(all), shards, count(shape),
                            launch)
  call.hold(ctx, opts, { all[kind[1]], all.targets }, out)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return out
end

function M.finish(ctx, records, batch, opts)
  opts = call.options("finish", opts, FINISH_OPTIONS)
  batch = call.batch("finish", ctx, batch)
  local shape = shape_of("finish", records, ctx.device)
  if not same_shape(shape, batch.shape) then
    raise("finish: records of rows %s, the batch has rows %s", shape_text(shape),
          shape_text(batch.shape))
  end
  local placed, message, code = in_place("finish", records, opts.stream)
  if not placed then return nil, message, code end
  local c, made
  c, made, code = call.outputs(batch, opts)
  if not c then return nil, made, code end
  local status = C.sb_finish(ctx.handle, c, batch.c, struct_of(placed),
                             call.launch("finish", ctx, opts))
  call.hold(ctx, opts, { batch, placed[kind_of(placed)[1]], placed.targets }, made)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return call.results(made, opts)
end

-- Enough for records of either kind, whatever outputs they are finished to.
function M.workspace_size(ctx, batch, opts)
  opts = call.options("shard_workspace_size", opts, LAUNCH_OPTIONS)
  batch = call.batch("shard_workspace_size", ctx, batch)
  local records = struct(MOMENTS, call.ANYWHERE, call.ANYWHERE)
  local partial, message, code = call.needed("shard_workspace_size", ctx, opts, function(launch)
    return C.sb_partial(ctx.handle, records, batch.c, batch.first, batch.held, launch)
  end)
  if not partial then return nil, message, code end
  local c = call.wanted_outputs(batch, { outputs = { "sequence" } })
  local finish
  finish, message, code = call.needed("shard_workspace_size", ctx, opts, function(launch)
    return C.sb_finish(ctx.handle, c, batch.c, records, launch)
  end)
  if not finish then return nil, message, code end
  return math.max(partial, finish)
end

return M
