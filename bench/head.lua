-- head.lua - how long logits from hidden states take on the cpu: nanoseconds per multiply-add and
-- thread, of whole calls of sb_logprob, for each instruction set that this machine has.
--
--   LUA_PATH="$PWD/lua/?.lua;;" luajit bench/head.lua [THREADS [D [V [ROWS ...]]]]
--
-- The environment variable ISAS may name some of them. Each number is the fastest of some calls, at
-- least 3, that take about a second, or what the environment variable SECONDS says. "prepare" is
-- sb_head_create's time per weight and thread.

local ffi = require "ffi"
local samebits = require "samebits"
local tensor = require "samebits.tensor"

ffi.cdef "typedef struct { long s, ns; } bench_time; int clock_gettime(int, bench_time *);"

local threads = tonumber(arg[1]) or 1

-- One thread is timed by its own clock, so that other work of the machine matters less.
local CLOCK = threads == 1 and 3 or 1

local function now()
  local t = ffi.new "bench_time"
  ffi.C.clock_gettime(CLOCK, t)
  return tonumber(t.s) + tonumber(t.ns) * 1e-9
end

local SECONDS = tonumber(os.getenv "SECONDS") or 1

local function fastest(f)
  local best, begun, calls = math.huge, now(), 0
  while calls < 3 or now() - begun < SECONDS do
    local from = now()
    f()
    best, calls = math.min(best, now() - from), calls + 1
  end
  return best
end

-- bf16 values between 2^-7 and 2 in magnitude.
local function values(rows, width)
  local t = tensor.empty({ rows, width }, "bfloat16")
  local words, state = ffi.cast("uint16_t *", t.ptr), 1
  for i = 0, rows * width - 1 do
    state = (state * 69069 + 1) % 2 ^ 32
    words[i] = 0x3c00 + math.floor(state / 2 ^ 22) + (state % 2 ^ 21 >= 2 ^ 20 and 0x8000 or 0)
  end
  return t
end

local D, V = tonumber(arg[2]) or 4096, tonumber(arg[3]) or 2048
local rows = { unpack(arg, 4) }
if #rows == 0 then rows = { 1, 8, 64 } end

local weights = values(V, D)
print(("D %d, V %d, threads %d; ns per multiply-add and thread"):format(D, V, threads))
print "| isa | format | prepare | rows | ns | ms |"
print "| --- | --- | --- | --- | --- | --- |"
for isa in (os.getenv "ISAS" or "scalar avx2 avx512"):gmatch "%w+" do
  local ctx, why = samebits.open("cpu", { isa = isa, threads = threads })
  if not ctx then print(("| %s | %s |"):format(isa, why)) end
  for _, format in ipairs(ctx and { "h24w16", "h24w24" } or {}) do
    local head
    local prepare = fastest(function() head = ctx:head(weights, { format = format }) end)
    for _, n in ipairs(rows) do
      n = tonumber(n)
      local ids = {}
      for i = 1, n do ids[i] = i % V end
      local batch = samebits.batch { hidden = values(n, D), head = head, ids = ids }
      local seconds = fastest(function() ctx:logprob(batch) end)
      print(("| %s | %s | %.3f | %d | %.4f | %.3f |"):format(
        (ctx:plan():match "products by (%w+)" or isa), format, prepare * threads * 1e9 / (V * D), n,
        seconds * threads * 1e9 / (n * V * D), seconds * 1e3))
    end
  end
end
