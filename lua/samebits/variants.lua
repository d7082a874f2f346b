--- Every way to run a call on this machine: each backend, on the cpu each instruction set with
-- several threads and splits, on other backends several geometries. All must give the same bits,
-- which selftest and the specs check.

local context = require "samebits.context"

local M = {}

--- The instruction sets of the cpu backend.
M.ISAS = { "scalar", "avx2", "avx512" }

-- One thread and no split; and numbers of threads and pieces that divide nothing evenly.
local SETTINGS = {
  { label = "", threads = 1, split = 1 },
  { label = ", 3 threads, split 7", threads = 3, split = 7 },
}

-- The GPU backend's own choice; one block per row; rows in pieces, finished by a second launch or
-- in a cluster, with logits fetched before ids or not; the largest blocks; terms looked up in a
-- table and the logits read once for a gradient, or neither.
local GEOMETRIES = {
  { label = "" },
  { label = ", split 1, 128 threads", split = 1, block = 128 },
  { label = ", split 7, 64 threads, not ahead", split = 7, block = 64, cluster = -1 },
  { label = ", split 3, 96 threads", split = 3, block = 96 },
  { label = ", split 5, 96 threads, cluster", split = 5, block = 96, cluster = 1 },
  { label = ", split 1, 512 threads", split = 1, block = 512 },
  { label = ", table, one read", table = 1, one_read = 1 },
  { label = ", no table, two reads", table = -1, one_read = -1 },
}

local function variant(name, key, backend, opts)
  local opened
  local function open()
    if opened then return opened end
    local ctx, why, code = context.open(backend, opts)
    opened = ctx
    return ctx, why, code
  end
  return { name = name, key = key, backend = backend, context = open }
end

--- Returns a list of { name, key, backend, context }. `key` is the backend's name, on the cpu the
-- instruction set's. `context()` opens the context at the first call, or returns nil, a message and
-- a code.
function M.list()
  local list = {}
  for _, backend in ipairs(context.backends()) do
    if backend.name == "cpu" then
      for _, isa in ipairs(M.ISAS) do
        for _, setting in ipairs(SETTINGS) do
          list[#list + 1] = variant(("cpu %s%s"):format(isa, setting.label), isa, "cpu",
            { isa = isa, threads = setting.threads, split = setting.split })
        end
      end
    else
      for _, geometry in ipairs(GEOMETRIES) do
        list[#list + 1] = variant(backend.name .. geometry.label, backend.name, backend.name,
          { split = geometry.split, block = geometry.block, cluster = geometry.cluster,
            table = geometry.table, one_read = geometry.one_read })
      end
    end
  end
  return list
end

--- Returns the list in two parts: the variants that can be opened here, and one variant per key of
-- those that cannot, with `why`.
function M.present()
  local present, missing, seen = {}, {}, {}
  for _, at in ipairs(M.list()) do
    local ctx, why = at.context()
    if ctx then
      present[#present + 1] = at
    elseif not seen[at.key] then
      seen[at.key] = true
      at.why = why
      missing[#missing + 1] = at
    end
  end
  return present, missing
end

return M
