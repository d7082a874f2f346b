-- How much of an array a call on a GPU needs: up to the end of the last row that may be read, in
-- any layout, and not a byte more. (calls_spec.lua covers each call's arrays.)

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local ending = require "spec.support.ending"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"

local misuse, says = refusal.misuse, refusal.says
local B, T, V = 2, 3, 100
local OUTPUTS = { "token", "lse", "sequence", "count" }

describe("arrays on a GPU:", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    local function values(rows, seed) return hex.tensor(hex.values(rows * V, seed), { rows, V }) end

    -- Sequences of T rows, with the given distances in elements between rows and between sequences.
    local function batch(layout)
      local ids = samebits.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "int32" })
      local spec = { ids = ids, logits = values(B * T, 41):view(B, T, V), shift = layout.shift }
      if layout.packed then
        spec.ids, spec.logits = ids:view(B * T), spec.logits:view(B * T, V)
        spec.cu_seqlens = { 0, T, B * T }
      end
      return spec
    end

    -- The end of the last row, in elements from the first logit on.
    for name, layout in pairs {
      ["padded"] = { elements = B * T * V },
      ["padded, with shift"] = { shift = 1, elements = (B * T - 1) * V },
      ["packed"] = { packed = true, elements = B * T * V },
      ["packed, with shift"] = { packed = true, shift = 1, elements = (B * T - 1) * V },
      ["strided"] = { row = V + 3, sequence = 4 * V + 9,
                      elements = (4 * V + 9) * (B - 1) + (V + 3) * (T - 1) + V },
      ["strided, with shift"] = { shift = 1, row = V + 3, sequence = 4 * V + 9,
                                  elements = (4 * V + 9) * (B - 1) + (V + 3) * (T - 2) + V },
      ["sequences that overlap"] = { sequence = V, elements = V * (B - 1) + V * T },
      ["time before batch"] = { row = B * V, sequence = V,
                                elements = V * (B - 1) + B * V * (T - 1) + V },
    } do
      it(name .. " logits are taken where they just fit, and refused an element short", function()
        local spec = batch(layout)
        local there = assert(samebits.batch(spec):to(device))
        local row, sequence = layout.row or V, layout.sequence or T * V
        local all = samebits.zeros { layout.elements }
        local from, to = spec.logits:pointer(), all:pointer()
        for b = 0, B - 1 do
          for t = 0, T - 1 do
            local first = b * sequence + t * row
            for i = 0, V - 1 do
              if first + i < layout.elements then to[first + i] = from[(b * T + t) * V + i] end
            end
          end
        end
        -- The same batch on the cpu.
        local here = samebits.batch(spec)
        for _, held in ipairs { here, there } do
          held.c.row_stride, held.c.batch_stride = row, sequence
        end
        here.c.logits = all.ptr
        local want = samebits.logprob(here)
        local fits, short = ending(all, device), ending(all, device, 4)
        there.c.logits = fits.ptr
        local got = assert(ctx:logprob(there))
        for _, output in ipairs(OUTPUTS) do assert.same_bits(want[output], got[output]) end
        there.c.logits = short.ptr
        says(misuse(function() ctx:logprob(there) end), "logits (", "is too short",
             ("needs %d bytes, the allocation has %d"):format(layout.elements * 4,
                                                              layout.elements * 4 - 4))
      end)
    end

    it("what no row needs may be anywhere", function()
      local spec = { logits = values(1, 42):view(1, 1, V), ids = { { 5 } }, shift = 1 }
      local there = assert(samebits.batch(spec):to(device))
      there.c.logits = ffi.cast("void *", 64) -- a sequence's first row alone is ignored
      local out = assert(ctx:logprob(there))
      assert.equal("00000000", out.token:bits()[1][1])
    end)

    it("strides past the address space are refused", function()
      local there = assert(samebits.batch(batch {}):to(device))
      there.c.batch_stride = 2LL ^ 60
      says(misuse(function() ctx:logprob(there) end), "logits (", "is too short")
      there.c.batch_stride = 2LL ^ 62
      says(misuse(function() ctx:logprob(there) end), "past the address space")
    end)

    it("gradients with wide rows need all of them", function()
      local spec = batch {}
      local there = assert(samebits.batch(spec):to(device))
      local saved = assert(ctx:logprob(there, { outputs = { "saved" } })).saved
      local token = samebits.zeros({ B, T }, "float32", device)
      local wide = samebits.zeros { B, T, V + 28 }
      local grad = ending(wide, device)
      assert.equal(grad, ctx:backward(there, { saved = saved, token = token }, { grad = grad }))
      says(misuse(function()
        ctx:backward(there, { saved = saved, token = token }, { grad = ending(wide, device, 4) })
      end), "grad (", "is too short")
    end)

    it("records, and statistics of tokens, too", function()
      local spec = { logits = values(B * T, 43), ids = { 1, 2, 3, 4, 5, 6 } }
      local records = {}
      for s, cut in ipairs { { 0, 48 }, { 48, V } } do
        local shard = samebits.batch(shards.shard(spec, cut[1], cut[2])):to(device)
        records[s] = assert(ctx:partial(shard))
      end
      local all = { states = samebits.zeros({ 2, B * T, 32 }, "uint8"),
                    targets = samebits.zeros({ 2, B * T, 8 }, "uint8") }
      for s = 1, 2 do
        for name, t in pairs(records[s]) do all[name][s - 1]:copy_(t) end
      end
      for _, name in ipairs { "states", "targets" } do
        local other = name == "states" and "targets" or "states"
        local given = { [name] = ending(all[name], device, 8),
                        [other] = assert(all[other]:to(device)) }
        says(misuse(function() ctx:merge(given) end), ("from.%s ("):format(name), "is too short")
        given[name] = ending(all[name], device)
        assert(ctx:merge(given))
      end

      local x = values(1, 44):view(V)
      for _, missing in ipairs { 0, 4 } do
        local whole, short = assert(x:to(device)), ending(x, device, missing)
        local calls = {
          ["sampled ("] = function() assert(ctx:compare(short, whole)) end,
          ["other ("] = function() assert(ctx:compare(whole, short)) end,
          ["values ("] = function() assert(ctx:sums(short)) end,
          ["minus ("] = function() assert(ctx:sums(whole, { minus = short })) end,
        }
        for name, call in pairs(calls) do
          if missing == 0 then call() else says(misuse(call), name, "is too short") end
        end
      end
    end)
  end)
end)
