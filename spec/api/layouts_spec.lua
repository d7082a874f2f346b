-- The same sequences give the same bits in any layout and beside any others: padded on either side,
-- packed, alone, in another order, in pieces, listed by row, shifted or not.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"

local V = 67
local LENGTHS = { 5, 1, 0, 7, 2 }

-- Sequences with prompts, with masks of their own, and with ignored ids.
local function sequences()
  local list = {}
  for b, length in ipairs(LENGTHS) do
    local ids, mask = {}, {}
    for t = 1, length do
      ids[t] = (b * 13 + t * 29) % V
      mask[t] = (b + t) % 4 == 0 and 0 or 1
    end
    if length > 4 then ids[length] = -100 end
    list[b] = {
      logits = hex.tensor(hex.values(length * V, 100 + b), { length, V }),
      ids = ids,
      mask = b % 2 == 0 and mask or nil,
      prompt = length > 4 and 2 or nil,
    }
  end
  return list
end

-- Results by sequence and position, whatever the layout: { token bits, lse bits, sum, count }.
local function results(score, batch, lengths, side)
  local out = score(batch)
  local token, lse, sums = hex.of(out.token), hex.of(out.lse), hex.of(out.sequence)
  local list = {}
  for b, length in ipairs(lengths) do
    local first, past = batch:bounds(b - 1)
    if side == "left" then first = past - length end
    local entry = { sum = sums[b], count = tonumber(out.count:get(b - 1)) }
    for t = 0, length - 1 do
      entry[#entry + 1] = token[first + t + 1] .. " " .. lse[first + t + 1]
    end
    list[b] = entry
  end
  return list
end

-- Enough for several threads to work on.
local ROWS, WIDE = 61, 4099
local many, many_ids, reference = hex.tensor(hex.values(ROWS * WIDE, 12), { ROWS, WIDE }), {}, nil
for row = 1, ROWS do many_ids[row] = row * 67 end

backends.each(function(at)
  describe("on " .. at.name .. ", the same bits", function()
    for _, shift in ipairs { false, true } do
      for _, temperature in ipairs { 1, { 0.5, 1, 2, 0.7, 1.3 } } do
        local how = ("%s, %s"):format(shift and "shifted" or "not shifted",
          type(temperature) == "table" and "temperatures by sequence" or "one temperature")

        local function built(layout, length)
          return samebits.batch_from { sequences = sequences(), layout = layout, length = length,
                                       shift = shift, temperature = temperature }
        end

        it("padded on the right, on the left, and packed; " .. how, function()
          local score = at.score
          local want = results(score, built "packed", LENGTHS)
          assert.same(want, results(score, built "right", LENGTHS))
          assert.same(want, results(score, built("right", 19), LENGTHS))
          assert.same(want, results(score, built "left", LENGTHS, "left"))
          assert.same(want, results(score, built("left", 19), LENGTHS, "left"))
          -- Something was scored.
          local counts = {}
          for b, entry in ipairs(want) do counts[b] = entry.count end
          assert.same(shift and { 2, 0, 0, 3, 1 } or { 2, 1, 0, 3, 2 }, counts)
        end)

        it("alone; " .. how, function()
          local score = at.score
          local want = results(score, built "packed", LENGTHS)
          for b, sequence in ipairs(sequences()) do
            local alone = samebits.batch_from {
              sequences = { sequence }, shift = shift,
              temperature = type(temperature) == "table" and temperature[b] or temperature,
            }
            assert.same(want[b], results(score, alone, { LENGTHS[b] })[1])
          end
        end)
      end
    end

    it("in another order, with other neighbours", function()
      local score, list = at.score, sequences()
      local want = results(score, samebits.batch_from { sequences = list }, LENGTHS)
      local order = { 4, 3, 5, 1, 2 }
      local shuffled, lengths, expected = {}, {}, {}
      for i, b in ipairs(order) do
        shuffled[i], lengths[i], expected[i] = list[b], LENGTHS[b], want[b]
      end
      for _, layout in ipairs { "right", "packed" } do
        assert.same(expected, results(score, samebits.batch_from { sequences = shuffled,
                                                                   layout = layout }, lengths))
      end
    end)

    it("by a list of rows, which gives the listed rows and only those", function()
      local score = at.score
      local logits = hex.tensor(hex.values(6 * V, 3), { 2, 3, V })
      local ids = { { 1, 2, 3 }, { 4, 5, 66 } }
      local all = hex.of(score { logits = logits, ids = ids }.token)
      for _, rows in ipairs { {}, { 0 }, { 5 }, { 1, 3, 4 }, { 0, 1, 2, 3, 4, 5 } } do
        local mask, listed = { { 0, 0, 0 }, { 0, 0, 0 } }, {}
        for _, row in ipairs(rows) do
          mask[math.floor(row / 3) + 1][row % 3 + 1] = 1
          listed[row] = true
        end
        local out = score { logits = logits, ids = ids, rows = rows }
        local masked = score { logits = logits, ids = ids, mask = mask }
        for _, name in ipairs { "token", "lse", "sequence", "count" } do
          assert(samebits.same_bits(masked[name], out[name]))
        end
        local token = hex.of(out.token)
        for row = 0, 5 do assert.equal(listed[row] and all[row + 1] or "00000000",
                                       token[row + 1]) end
      end
    end)

    it("shifted by the library and by hand", function()
      local score = at.score
      local logits = hex.tensor(hex.values(8 * V, 4), { 2, 4, V })
      local ids = samebits.tensor({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 } }, { dtype = "int64" })
      local shifted = score { logits = logits, ids = ids, shift = 1 }
      local by_hand = score { logits = logits:slice(1, 0, 3), ids = ids:slice(1, 1, 4) }
      assert(samebits.same_bits(by_hand.token, shifted.token:slice(1, 1, 4)))
      assert(samebits.same_bits(by_hand.lse, shifted.lse:slice(1, 1, 4)))
      assert(samebits.same_bits(by_hand.sequence, shifted.sequence))
      assert.same({ 3, 3 }, shifted.count:totable())
      assert.same({ { "00000000" }, { "00000000" } }, shifted.token:slice(1, 0, 1):bits())
    end)

    it("with prompts masked by splits", function()
      local score = at.score
      local list = { { prompt = 2, total = 4 }, { prompt = 0, total = 3 },
                     { prompt = 3, total = 3 } }
      local entries, prompts, totals, ids = {}, {}, {}, {}
      for b, s in ipairs(list) do
        local own = {}
        for t = 1, s.total do own[t] = b * 10 + t end
        ids[b], prompts[b], totals[b] = own, s.prompt, s.total
        entries[b] = { logits = hex.tensor(hex.values(s.total * V, b), { s.total, V }), ids = own,
                       prompt = s.prompt }
      end
      for _, side in ipairs { "right", "left" } do
        local logits = {}
        for b = 1, 3 do logits[b] = entries[b].logits end
        local by_hand = score {
          logits = samebits.pad(logits, { side = side }), ids = samebits.pad(ids, { side = side }),
          mask = samebits.mask_from_splits(prompts, totals, nil, side),
        }
        local made = score(samebits.batch_from { sequences = entries, layout = side })
        assert(samebits.same_bits(by_hand.token, made.token))
        assert(samebits.same_bits(by_hand.sequence, made.sequence))
        assert.same({ 2, 3, 0 }, made.count:totable())
      end
    end)

    it("in many rows at once as in each alone, and as on the first variant", function()
      local score = at.score
      local all = hex.of(score { logits = many, ids = many_ids, temperature = 0.9 }.token)
      reference = reference or all
      assert.same(reference, all)
      for row = 0, ROWS - 1, 7 do
        local one = score { logits = many:slice(0, row, row + 1), temperature = 0.9,
                            ids = { many_ids[row + 1] } }
        assert.equal(all[row + 1], hex.of(one.token)[1])
      end
    end)
  end)
end)
