-- Transforms: each lays the sequences of a case out anew, loses none of their tokens, and on the
-- cpu reaches no bit.

local ffi = require "ffi"
local samebits = require "samebits"
local cases = require "samebits.verify.case"
local compare = require "samebits.verify.compare"
local prng = require "samebits.verify.prng"
local transforms = require "samebits.verify.transforms"

local LENGTHS, V = { [0] = 3, 2, 3, 1 }, 5

local function sequences(n)
  local list, random = {}, prng.new(5)
  for s = 0, n - 1 do
    local made = { length = LENGTHS[s], ids = {}, temperatures = {}, active = {} }
    local rows = {}
    for t = 0, made.length - 1 do
      rows[t + 1] = {}
      for id = 1, V do rows[t + 1][id] = random:integer(-16, 16) / 4 end
      made.ids[t], made.temperatures[t], made.active[t] = random:integer(0, V - 1), 1, true
    end
    made.logits = samebits.tensor(rows)
    list[s] = made
  end
  return list
end

-- A case of a transform, with the fields that it draws drawn, but for those given.
local function drawn(transform, fields)
  local case = cases.new { n = math.min(transform.most or 4, 4), T = 3, V = V, room = 2 }
  local random = prng.new(11)
  for _, name in ipairs(transform.draws or {}) do case[name] = cases.draw(random, case, name) end
  case.wild = "none"
  for name, value in pairs(fields or {}) do case[name] = value end
  return case
end

local function calls(name, fields)
  local transform = transforms.named[name]
  local case = drawn(transform, fields)
  return transform.calls(case, sequences(case.n))
end

-- "00 01 -": the sequence and position of each row of a call.
local function tokens(call)
  local words = {}
  for i, slot in ipairs(call.rows) do words[i] = slot and slot.s .. slot.t or "-" end
  return table.concat(words, " ")
end

describe("a transform", function()
  it("is found by its name", function()
    for _, transform in ipairs(transforms.list) do
      assert.equal(transform, transforms.named[transform.name])
      for _, name in ipairs(transform.draws or {}) do assert.is_table(cases.field_of[name]) end
    end
  end)

  it("of one sequence or piece at a time makes a call of each", function()
    local list = calls("alone", { n = 2 })
    assert.same({ 2, "00 01 02", "10 11" }, { #list, tokens(list[1]), tokens(list[2]) })
    list = calls("chunks", { n = 2, piece = 2 })
    assert.same({ 3, "00 01", "02", "10 11" },
                { #list, tokens(list[1]), tokens(list[2]), tokens(list[3]) })
    list = calls("steps", { n = 2, piece = 2, layout = "packed" })
    assert.same({ 2, "00 01 10 11", "02" }, { #list, tokens(list[1]), tokens(list[2]) })
  end)

  it("of the layout pads, packs or repeats the batch", function()
    assert.equal("00 01 02 - 10 11 - -", tokens(calls("right", { n = 2, pad = 1 })[1]))
    assert.equal("- 00 01 02 - - 10 11", tokens(calls("left", { n = 2, pad = 1 })[1]))
    local packed = calls("packed", { n = 2, pad = 1 })[1]
    assert.equal("00 01 02 10 11", tokens(packed))
    assert.same({ 0, 3, 3, 5 }, packed.spec.cu_seqlens:totable())
    assert.equal("00 01 02 10 11 00 01 02 10 11",
                 tokens(calls("copies", { n = 2, copies = 2, layout = "packed" })[1]))
    assert.equal("00 01 01 02", tokens(calls("windows", { piece = 2 })[1]))
  end)

  it("of the order has each sequence at each place", function()
    local list = calls("places", { n = 2, layout = "packed" })
    assert.same({ "00 01 02 10 11", "10 11 00 01 02" }, { tokens(list[1]), tokens(list[2]) })
    list = calls("places", { n = 3, layout = "packed" })
    assert.same({ "00 01 02 10 11 20 21 22", "10 11 20 21 22 00 01 02", "20 21 22 00 01 02 10 11" },
                { tokens(list[1]), tokens(list[2]), tokens(list[3]) })
  end)

  it("by row lists scores each row in just one of the calls", function()
    local list, seen = calls("lists", { n = 2, parts = 3, layout = "packed" }), {}
    assert.equal(3, #list)
    for _, call in ipairs(list) do
      for row, slot in ipairs(call.rows) do
        if slot then
          assert.is_nil(seen[row])
          seen[row] = true
        end
      end
    end
    assert.equal(5, #seen)
  end)

  it("reaches no bit of what each sequence gives alone, and leaves no token out", function()
    local ctx = assert(samebits.open("cpu", { isa = "scalar", threads = 1 }))
    finally(function() ctx:close() end)
    local at = { backend = "cpu", context = function() return ctx end, batch = samebits.batch,
                 score = function(spec, opts) return assert(ctx:logprob(spec, opts)) end }
    local made, expected = sequences(4), {}
    for s, call in ipairs(transforms.named.alone.calls(drawn(transforms.named.alone), made)) do
      local out = at.score(call.spec)
      expected[s - 1] = { out = out, token = compare.words(out.token),
                          lse = compare.words(out.lse),
                          sum = ffi.cast("uint32_t *", out.sequence.ptr)[0] }
    end
    for _, transform in ipairs(transforms.list) do
      local case, seen = drawn(transform, { outputs = "token" }), {}
      local found = compare.new "alone"
      for number, call in ipairs(transform.calls(case, made)) do
        local out = transform.score and transform.score(at, call, case) or
                    at.score(call.spec, transform.opts and transform.opts(case, at))
        compare.call(found, call, number, out, { sequences = made, expected = expected })
        for _, slot in ipairs(call.rows) do
          if slot then seen[slot.s .. slot.t] = true end
        end
      end
      assert.equal(0, found.count, found.first and transform.name .. ": " .. tostring(found))
      assert.is_true(found.tokens > 0, transform.name)
      for s = 0, case.masked == "some" and -1 or case.n - 1 do   -- masked: tokens are left out
        for t = 0, LENGTHS[s] - 1 do assert.is_true(seen[s .. t], transform.name) end
      end
    end
  end)
end)
