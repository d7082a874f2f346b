-- The golden merges (spec/vectors/merge.txt) through the public API: records of single leaves, made
-- here from docs/numerics.md, and merged as each tree says.

local ffi = require "ffi"
local samebits = require "samebits"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local backends = require "spec.support.backends"

local BIAS = 2 ^ 22

-- A type with the layout of sb_state_record.
local function state_of(J, c, l1, l2)
  local t = samebits.zeros({ 1, 32 }, "uint8")
  local record = ffi.cast("sb_state_record *", t.ptr)
  record.J, record.c, record.l[1], record.l[2] = J, c, l1, l2
  return { states = t, targets = samebits.zeros({ 1, 8 }, "uint8") }
end

-- The record of one leaf: w = M << (a & 31) in digits j and j + 1.
local function leaf_state(leaf, c)
  local a = leaf.A + BIAS
  local w = bit.lshift(ffi.cast("uint64_t", leaf.M), a % 32)
  return state_of(math.floor(a / 32), c, bit.band(w, 0xffffffffULL), bit.rshift(w, 32))
end

local function evaluate(ctx, tree, case, c)
  local stack = {}
  for _, word in ipairs(tree) do
    if word == "+" then
      local right = table.remove(stack)
      stack[#stack] = assert(ctx:merge { stack[#stack], right })
    else
      local made = word == "empty" and state_of(0, c, 0, 0) or
                   word == "poison" and state_of(0x7fffffff, c, 0, 0) or
                   leaf_state(case.leaves[tonumber(word) + 1], c)
      stack[#stack + 1] = { states = assert(made.states:to(ctx.device)),
                            targets = assert(made.targets:to(ctx.device)) }
    end
  end
  assert(#stack == 1, "a tree leaves one state")
  return stack[1]
end

local function bytes_of(records) return table.concat(records.states:bits()[1]) end

describe("golden merges", function()
  local cases
  setup(function() cases = assert(vectors.read(selftest.directory .. "/merge.txt")) end)

  local seen = {}
  backends.each(function(at)
    if seen[at.context().device] then return end -- merging knows no isa, split or block
    seen[at.context().device] = true

    it("on " .. at.context().device, function()
      local ctx, trees = at.context(), 0
      for _, case in ipairs(cases) do
        local c = tonumber(case.state:sub(9, 16):gsub("(%x%x)(%x%x)(%x%x)(%x%x)", "%4%3%2%1"), 16)
        local poisoned = false
        for _, tree in ipairs(case.trees or {}) do
          trees = trees + 1
          for _, word in ipairs(tree) do poisoned = poisoned or word == "poison" end
          assert.equal(case.state, bytes_of(evaluate(ctx, tree, case, c)), case.name)
        end
        if not poisoned and case.leaves then -- all at once
          local list = {}
          for i, leaf in ipairs(case.leaves) do
            local made = leaf_state(leaf, c)
            list[i] = { states = assert(made.states:to(ctx.device)),
                        targets = assert(made.targets:to(ctx.device)) }
          end
          assert.equal(case.state, bytes_of(assert(ctx:merge(list))), case.name)
        end
      end
      assert.is_true(trees > 100)
    end)
  end)
end)
