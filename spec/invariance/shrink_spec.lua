-- The invariance suite itself: its cases cover its purpose, each transform works as described and
-- finds a fault there, and a failure is simplified and reported in full.

local ffi = require "ffi"
local samebits = require "samebits"
local cases = require "spec.support.invariance.case"
local check = require "spec.support.invariance.check"
local data = require "spec.support.invariance.data"
local fault = require "spec.support.invariance.fault"
local property = require "spec.support.invariance.property"
local transforms = require "samebits.verify.transforms"
local refusal = require "spec.support.refusal"

local ctx = assert(samebits.open("cpu", { isa = "scalar", threads = 1, split = 1 }))
local at = { name = "cpu scalar", backend = "cpu", context = function() return ctx end,
             batch = samebits.batch,
             score = function(spec, opts) return assert(ctx:logprob(spec, opts)) end }

-- How many cases a transform gets in the default run.
local CASES = 6

local function drawn(transform, i)
  local case = cases.draw(transform, i, 1)
  case.on = at.name
  return case
end

-- Whether more than one shard has ids.
local function several(shards)
  local held = 0
  for _, shard in ipairs(shards) do held = held + (shard[2] > shard[1] and 1 or 0) end
  return held > 1
end

describe("drawn cases", function()
  local seen, count = {}, 0
  for _, transform in ipairs(transforms.list) do
    for i = 1, CASES do
      local case = drawn(transform, i)
      count = count + 1
      for name, value in pairs(case) do
        seen[name] = seen[name] or {}
        seen[name][value] = true
      end
      seen[case.dtype .. case.kind] = true
      seen[case.dtype .. case.V] = true
    end
  end

  it("have every value of every field", function()
    assert.is_true(count >= 100)
    for _, field in ipairs(cases.FIELDS) do
      for _, value in ipairs(field.values or {}) do
        assert.is_true(seen[field.name][value], ("%s=%s"):format(field.name, value))
      end
    end
    assert.same({ [0] = true, true }, seen.shift)
    for _, vocab in ipairs(cases.REAL) do assert.is_true(seen.V[vocab], "V=" .. vocab) end
  end)

  it("have every kind of logits in every dtype, and large vocabularies in each", function()
    for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
      for _, field in ipairs(cases.FIELDS) do
        if field.name == "kind" then
          for _, kind in ipairs(field.values) do
            assert.is_true(seen[dtype .. kind], dtype .. " " .. kind)
          end
        end
      end
      local large = 0
      for _, vocab in ipairs(cases.REAL) do
        if seen[dtype .. vocab] and vocab > 150000 then large = large + 1 end
      end
      assert.is_true(large >= 2, dtype)
    end
  end)

  it("have few shards and many, empty ones, and merges at once and in trees", function()
    local kinds = {}
    for i = 1, CASES do
      local case = drawn(transforms.named.shards, i)
      local list, empty = cases.shards(case, case.V + case.extra), false
      assert.same({ 0, case.V + case.extra }, { list[1][1], list[#list][2] })
      for s, shard in ipairs(list) do
        assert.equal(shard[1], s == 1 and 0 or list[s - 1][2])
        assert.is_true(shard[1] <= shard[2])
        empty = empty or shard[1] == shard[2]
      end
      if several(list) then kinds.several = true end
      kinds[empty and "empty" or "full"] = true
      kinds[#list > 5 and "many" or "few"] = true
      kinds[case.tree > 0 and "tree" or "at once"] = true
    end
    for _, kind in ipairs { "several", "empty", "full", "many", "few", "tree", "at once" } do
      assert.is_true(kinds[kind], kind)
    end
  end)

  it("are the same each time, and others from another seed", function()
    for _, transform in ipairs(transforms.list) do
      local again, other = drawn(transform, 1), cases.draw(transform, 1, 2)
      other.on = at.name
      assert.equal(cases.text(drawn(transform, 1)), cases.text(again))
      assert.not_equal(cases.text(other), cases.text(again))
    end
  end)

  it("read back from their text", function()
    for _, transform in ipairs(transforms.list) do
      for i = 1, CASES do
        local case = drawn(transform, i)
        case.on = "cpu scalar, 3 threads, split 7"
        assert.same(case, cases.parse(cases.text(case)))
      end
    end
    for text, words in pairs {
      ["alone n=1"] = "no variant",
      ["alone n on cpu"] = "'n' is not NAME=VALUE",
      ["alone m=1 on cpu"] = "m is 1",
      ["alone n=0 on cpu"] = "n is 0",
      ["alone n=1.5 on cpu"] = "n is 1.5",
      ["alone kind=odd on cpu"] = "kind is odd",
      ["alone cuts=17 on cpu"] = "cuts is 17",
      ["alone cuts=48,16 on cpu"] = "cuts is 48,16",
      ["alone cuts=16,,48 on cpu"] = "cuts is 16,,48",
      ["alone kind=flat container=float16 on cpu"] = "the container does not hold",
    } do
      refusal.says(refusal.message(cases.parse(text)), words)
    end
  end)

  it("score something: finite, -inf and NaN, whole sequences and parts", function()
    local tokens = { finite = 0, inf = 0, nan = 0, off = 0, whole = 0, part = 0 }
    local function add(kind) tokens[kind] = tokens[kind] + 1 end
    local function look(call)
      local token = ffi.cast("float *", at.score(call.spec).token.ptr)
      for row, slot in ipairs(call.rows) do
        local x = token[row - 1]
        add(not slot and "off" or x ~= x and "nan" or x == -math.huge and "inf" or "finite")
      end
      for _, sum in ipairs(call.sums) do
        add(sum.whole and "whole" or sum.count > 0 and "part" or "off")
      end
    end
    for _, transform in ipairs(transforms.list) do
      for i = 1, 3 do
        local case = drawn(transform, i)
        for _, call in ipairs(transform.calls(case, data.sequences(case))) do look(call) end
      end
    end
    for kind, n in pairs(tokens) do assert.is_true(n >= 10, ("%s: %d"):format(kind, n)) end
    assert.is_true(tokens.finite > 500)
  end)
end)

-- Whether a padded batch holds a row without a token, or a token, somewhere.
local function padded(call) return call.spec.logits.ndim == 3 end
local function first_slot(call)
  for _, slot in ipairs(call.rows) do if slot then return slot end end
end
local function repeats(call)
  local seen = {}
  for _, slot in ipairs(call.rows) do
    local key = slot and slot.s .. " " .. slot.t
    if key and seen[key] then return true end
    seen[key] = true
  end
  return false
end
local function elements(call)
  local logits = call.spec.logits
  return logits.shape[logits.ndim], logits.strides[logits.ndim - 1]
end

-- For each transform, the effects that only it, or few others, bring about.
local FEATURES = {
  alone = function(call) return not padded(call) and not call.spec.cu_seqlens end,
  batch = function(call) return #call.sums > 5 end,
  places = function(call, case) return first_slot(call) and first_slot(call).s == case.n - 1 end,
  shuffled = function(call) return first_slot(call) and first_slot(call).s > 0 end,
  neighbours = function(_, case) return case.wild ~= "none" end,
  copies = repeats,
  right = function(call) return padded(call) and not call.rows[#call.rows] end,
  left = function(call) return padded(call) and not call.rows[1] end,
  interleaved = function(call)
    for row = 2, #call.rows - 1 do
      local before, after = call.rows[row - 1], call.rows[row + 1]
      if before and after and not call.rows[row] and before.s == after.s and
         after.t == before.t + 1 then return true end
    end
  end,
  masks = function(call, case) return case.masked == "some" and case.by == "ignore" and
                                      call.spec.mask == nil end,
  packed = function(call) return call.spec.cu_seqlens and #call.sums > 5 end,
  lists = function(call, case) return call.spec.rows and case.by ~= "list" end,
  chunks = function(call) return first_slot(call) and first_slot(call).t > 0 end,
  steps = function(call) return first_slot(call) and first_slot(call).t > 0 and #call.sums > 1 end,
  reordered = function(call)
    for row = 2, #call.rows do
      local before, here = call.rows[row - 1], call.rows[row]
      if before and here and here.t < before.t and here.s == before.s then return true end
    end
  end,
  strides = function(call) local width, stride = elements(call) return stride > width end,
  windows = function(call)
    return padded(call) and call.spec.logits.strides[1] == call.spec.logits.strides[2] and
           call.spec.logits.shape[2] > 1
  end,
  offset = function(call) return tonumber(ffi.cast("uintptr_t", call.spec.logits.ptr) % 4) > 0 end,
  vocabulary = function(call, case) return elements(call) > case.V end,
  containers = function(call, case) return call.spec.logits.dtype ~= case.dtype end,
  arguments = function(call, case)
    return samebits.is_tensor(call.spec.temperature) and case.tau ~= "own"
  end,
  outputs = function(_, case) return case.outputs == "sequence" end,
  threads = function(_, case) return case.threads > 2 end,
  geometry = function(_, case) return case.split > 16 end,
  shards = function(call, case) return several(cases.shards(case, elements(call))) end,
  everything = function(call, case)
    return call.spec.shift == 1 and case.offset > 0 and case.gap > 0 and case.extra > 0
  end,
}

describe("a fault is found by", function()
  for _, transform in ipairs(transforms.list) do
    it(transform.name, function()
      local when = assert(FEATURES[transform.name], "no feature is known")
      local score, found = fault.when(when), 0
      for i = 1, CASES do
        local case = drawn(transform, i)
        assert(not check.run(case, at), "it fails without a fault")
        if check.run(case, at, score) then found = found + 1 end
      end
      assert.is_true(found > 0)
    end)
  end
end)

-- A case with much in it that does not matter to its failure.
local function case_of(fields)
  local case = {
    on = at.name, seed = 71, n = 5, T = 6, V = 300, kind = "peaked", dtype = "float16",
    tau = "own", off = "some", by = "mixed", fill = "nan", index = "int32", layout = "left",
  }
  for name, value in pairs(fields) do case[name] = value end
  return cases.new(case)
end

local function has_neighbour(found_case, score)
  local failing = {}
  for _, candidate in ipairs(cases.simpler(found_case)) do
    if check.run(candidate, at, score) then failing[#failing + 1] = cases.text(candidate) end
  end
  return failing
end

-- What fails where, and the simplest case that does.
local PLANTED = {
  { "batches of more than 3", { transform = "batch", n = 33 },
    function(call) return #call.sums > 3 end, "batch seed=71 n=4 T=1 V=1" },
  { "padding on the left", { transform = "everything", pad = 4, order = 7, gap = 5, wild = "inf" },
    function(call)
      return padded(call) and not call.rows[1] and call.sums[1].count > 0
    end, "everything seed=71 n=1 T=1 V=1 layout=left pad=1" },
  { "a second leaf of bf16", { transform = "shuffled", order = 3, V = 4099, dtype = "bfloat16" },
    function(call, case) return case.V > 16 and call.spec.logits.dtype == "bfloat16" end,
    "alone seed=71 n=1 T=1 V=17 dtype=bfloat16" },
  { "pieces that begin at position 3", { transform = "chunks", T = 17, piece = 3 },
    function(call) return call.rows[1] and call.rows[1].t == 3 end,
    "chunks seed=71 n=1 T=4 V=1" },
  { "pieces with a shift", { transform = "chunks", T = 17, piece = 5, shift = 1, off = "none" },
    function(call, case) return case.shift == 1 and call.rows[2].t >= 5 end,
    "chunks seed=71 n=1 T=6 V=1 shift=1" },
  { "7 pieces of a row", { transform = "geometry", split = 7, V = 32000 },
    function(_, case) return case.split == 7 and case.transform == "geometry" end,
    "geometry seed=71 n=1 T=1 V=1 split=7" },
  { "shards that begin at id 48", { transform = "shards", cuts = "16,48,48,128,288", tree = 9,
                                    split = 5 },
    function(call, case)
      if case.transform ~= "shards" then return false end
      for _, shard in ipairs(cases.shards(case, (elements(call)))) do
        if shard[1] == 48 and shard[2] > 48 then return true end
      end
    end, "shards seed=71 n=1 T=1 V=49 cuts=48" },
  { "merges of four shards", { transform = "shards", cuts = "0,16,32,64,128,128,240", tree = 3 },
    function(_, case) return #cases.shards(case, case.V) > 3 and case.transform == "shards" end,
    "shards seed=71 n=1 T=1 V=1 cuts=0,0,0" },
  { "merges in a tree", { transform = "shards", cuts = "16,32", tree = 1234, off = "none" },
    function(_, case) return case.tree > 0 and case.transform == "shards" end,
    "shards seed=71 n=1 T=1 V=1 tree=1" },
  { "sums of two tokens", { transform = "copies", copies = 3 },
    function(call) return call.sums[1].count >= 2 end, "alone seed=71 n=1 T=2 V=1", "sequence" },
  { "counts of -inf columns", { transform = "vocabulary", extra = 47 },
    function(call, case) return elements(call) > case.V + 16 end,
    "alone seed=71 n=1 T=1 V=1 extra=17",
    "count" },
}

describe("a fault in", function()
  for _, planted in ipairs(PLANTED) do
    local what, fields, when, simplest, output = unpack(planted)
    it(what .. " is reduced to " .. simplest, function()
      local score = fault.when(when, output or "token")
      local report, small = property.test(case_of(fields), at, 1, score)
      assert(report, "the fault is not found")
      assert.equal(simplest .. " on cpu scalar", cases.text(small))
      assert.same({}, has_neighbour(small, score))
    end)
  end

  it("a poisoned neighbour is reduced to the two of them", function()
    local function score(at_, call, case, transform)
      local out = check.score(at_, call, case, transform)
      local words, poisoned = ffi.cast("uint32_t *", out.token.ptr), false
      for row = 1, #call.rows do
        poisoned = poisoned or words[row - 1] == 0x7fc00000
        if call.rows[row] and poisoned then words[row - 1] = 0x7fc00000 end
      end
      return out
    end
    local report, small = property.test(case_of { transform = "neighbours", n = 8, wild = "nan",
                                                  order = 9 }, at, 1, score)
    assert(report, "the fault is not found")
    assert.same({ "nan", 1, true }, { small.wild, small.V, small.n <= 3 })
    assert.same({}, has_neighbour(small, score))
    refusal.says(report, "7fc00000 here", "no distance (NaN)")
  end)

  it("a call that fails is reduced to where it does", function()
    local function score(at_, call, case, transform)
      if case.V > 100 then error("planted\nfailure", 0) end
      if case.V > 50 then return fault.when(function() return true end)(at_, call, case,
                                                                        transform) end
      return check.score(at_, call, case, transform)
    end
    local report, small = property.test(case_of { transform = "batch" }, at, 1, score)
    -- Other bits are another failure: they come at V = 51 already.
    assert.equal("alone seed=71 n=1 T=1 V=101 on cpu scalar", cases.text(small))
    refusal.says(report, "call 0: planted")
  end)
end)

describe("a report", function()
  local score = fault.when(function(call) return #call.sums > 3 end, "token")
  local case = case_of { transform = "batch", n = 9, off = "none" }
  local report, small = property.test(case, at, 12, score)

  it("names the seed, the case, and the first difference before and after", function()
    local lines = {}
    for line in report:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(5, #lines)
    assert.equal("SB_SEED=12, " .. cases.text(case), lines[1])
    assert.matches("^the simplest of %d+ cases tried:$", lines[3])
    for _, line in ipairs { lines[2], lines[4] } do
      local want, got = line:match(
        "^  token differs at call 0, row %d+: sequence 0, position 0, id %d+: " ..
        "(%x%x%x%x%x%x%x%x) alone, (%x%x%x%x%x%x%x%x) here %(%S+ and %S+, 1 ULP%); " ..
        "1 difference in all$")
      assert(want, line)
      assert.equal(tonumber(want, 16) + 1, tonumber(got, 16))
    end
    -- The hex of what the sequence gives alone.
    local sequence = data.sequences(case)[0]
    local alone = at.score { logits = sequence.logits:slice(0, 0, 1), ids = { sequence.ids[0] },
                             temperature = sequence.temperatures[0] }
    assert.equal(alone.token:bits()[1], lines[2]:match "(%x+) alone")
  end)

  it("ends with a command that runs the simplest case, and that alone", function()
    local command = report:match "\n  (SB_CASE=[^\n]+)$"
    assert.equal(cases.text(small), command:match "SB_CASE='(.-)'")
    local pipe = io.popen(command .. " -o TAP 2>&1")
    local output = pipe:read "*a"
    pipe:close()
    refusal.says(output, "ok 1 - the same bits as alone: " .. cases.text(small),
                 "\n1 passed, 0 failed,")
  end)

  it("of a case that cannot be run says why", function()
    for text, words in pairs {
      ["alone n=x on cpu scalar"] = "n is x",
      ["aloft n=1 on cpu scalar"] = "there is no transform 'aloft'",
      ["alone n=1 on abacus"] = "there is no 'abacus' here",
    } do
      local pipe = io.popen(("SB_CASE='%s' luajit %s spec/invariance/sequences_spec.lua 2>&1")
        :format(text, arg[0]))
      local output = pipe:read "*a"
      pipe:close()
      refusal.says(output, words, "0 passed, 1 failed")
    end
  end)
end)
