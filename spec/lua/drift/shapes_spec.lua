-- samebits.drift: dumps in the layout of Hugging Face models, logits [B, T, V] and ids [B, T]
-- beside logprobs [B, T - 1]; and errors that show the shapes.

local samebits = require "samebits"
local drift = require("spec.support.drift_files").drift
local plant = require "spec.support.plant"

local B, T, V = 3, 8, 60
local logits, ids = plant.logits({ B, T, V }, 61), plant.ids({ B, T }, V, 62)

-- [B, T]: the logprob of id t by the logits of t - 1; position 0 has none.
local whole = plant.logprobs { logits = logits, ids = ids, shift = true }

-- The last T - 1 of T, copied.
local function cut(t) return t:slice(1, 1, T):contiguous() end

local values = cut(whole)
local mask = samebits.zeros({ B, T }, "uint8")
for b = 0, B - 1 do for t = 0, 5 + b % 2 do mask:set(1, b, t) end end

-- Equal, with this number of tokens compared; returns the report.
local function equal(tokens, ...)
  local report = drift(...)
  assert.is_true(report.equal, report:text())
  assert.equal(tokens, report.tokens.compared)
  return report
end

local function notes(report) return table.concat(report.notes, "\n") end

describe("drift, Hugging Face's layout:", function()
  it("logits [B, T, V], ids [B, T], logprobs [B, T - 1]", function()
    local report = equal(B * (T - 1), { logits = logits, ids = ids, logprobs = values },
                         { logprobs = values })
    assert.same({ B, T }, report.shape)
    assert.matches("logprobs %[3, 7%] are those of positions 1 to 7.*the logits of position t " ..
                   "score id t %+ 1", notes(report))
    equal(B * (T - 1), { logits = logits, ids = ids }, values)
    equal(B * (T - 1), values, { logits = logits, ids = ids })
    equal(B * (T - 1), { logprobs = values, ids = ids }, { logits = logits, ids = ids })
    -- The shapes and --shift give the same layout.
    equal(B * (T - 1), { logits = logits, ids = ids }, values, { shift = true })
    -- A side that has all positions is not lost beside it.
    equal(B * (T - 1), { logits = logits, ids = ids, logprobs = whole }, values, { shift = true })
  end)

  it("places are those of the ids", function()
    local other = plant.each(values, function(i, x) return i == T - 1 + 2 and x - 1 or x end)
    local report = drift(other, { logits = logits, ids = ids })
    assert.equal(1, report.tokens.different)
    assert.equal(1, report.first.sequence)
    assert.equal(3, report.first.position)
    assert.equal(ids:get(1, 3), report.first.id)
  end)

  it("causes are found", function()
    local cool = cut(plant.logprobs { logits = logits, ids = ids, shift = true, temperature = 0.7 })
    local report = drift(cool, { logits = logits, ids = ids })
    assert.equal("temperature", report.causes[1].cause)
    assert.equal(B * (T - 1), report.causes[1].tokens_exactly)
  end)

  it("with masks of either length, which may be both sides' own", function()
    local counted = 0
    for b = 0, B - 1 do for t = 1, T - 1 do counted = counted + mask:get(b, t) end end
    for _, one in ipairs { mask, cut(mask) } do
      equal(counted, { logits = logits, ids = ids, mask = one }, values)
      equal(counted, { logits = logits, ids = ids }, { logprobs = values, mask = one })
      equal(counted, { logprobs = values, mask = one, ids = ids }, { logprobs = values })
    end
    equal(counted, { logits = logits, ids = ids, mask = mask },
          { logprobs = values, mask = cut(mask) })
  end)

  it("without logits: the first id is no token", function()
    local report = equal(B * (T - 1), { logprobs = values, ids = ids }, { logprobs = values })
    assert.same({ B, T - 1 }, report.shape)
    assert.matches("ids %[3, 8%] are taken from position 1 on", notes(report))
    report = drift({ logprobs = values, ids = ids }, { logprobs = values, ids = cut(ids) })
    assert.is_true(report.equal)
    local other = cut(ids):clone()
    other:set((other:get(1, 2) + 1) % V, 1, 2)
    report = drift({ logprobs = values, ids = ids }, { logprobs = values, ids = other })
    assert.equal(1, report.inputs[1].first.sequence)
    assert.equal(2, report.inputs[1].first.position)
  end)

  it("logits that are cut to T - 1 beside ids that are not", function()
    local short = logits:slice(1, 0, T - 1):contiguous()
    equal(B * (T - 1), { logits = short, ids = ids }, values)
    equal(B * (T - 1), { logits = short, ids = cut(ids) }, { logprobs = values, ids = ids })
  end)

  it("labels [B, T - 1] beside logits [B, T, V]", function()
    equal(B * (T - 1), { logits = logits, ids = cut(ids) }, values)
  end)

  it("a single sequence without the batch's dimension", function()
    local one, list = logits[0], ids[0]
    equal(T - 1, { logits = one, ids = list }, values[0])
  end)

  it("temperatures, one per token, of either length", function()
    local taus = plant.each(samebits.zeros { B, T }, function(i) return 0.5 + i % 5 / 4 end)
    local warm = cut(plant.logprobs { logits = logits, ids = ids, shift = true,
                                      temperature = taus })
    equal(B * (T - 1), { logits = logits, ids = ids, temperature = taus }, warm)
    equal(B * (T - 1), { logits = logits, ids = ids, temperature = cut(taus) }, warm)
  end)

  it("from files", function()
    local temporary = require "spec.support.temporary"
    local shell = require "spec.support.shell"
    local files = temporary.folder()
    assert(samebits.save(files:path "hf.safetensors",
                         { logits = logits, ids = ids, logprobs = values, mask = mask }))
    assert(samebits.save(files:path "values.npy", values))
    assert(samebits.save(files:path "turned.npy", values:transpose(0, 1):contiguous()))
    local text, status = shell.run("bin/samebits drift %s %s", files:path "values.npy",
                                   files:path "hf.safetensors")
    assert.equal(0, status, text)
    assert.matches("all 16 tokens have the same bits", text)
    text, status = shell.run("bin/samebits drift %s %s", files:path "turned.npy",
                             files:path "hf.safetensors")
    assert.equal(2, status)
    assert.matches("transposed", text)
    files:remove()
  end)
end)

describe("drift, where shapes say nothing of a shift:", function()
  local function blames(text, tokens, ...)
    local report = drift(...)
    assert.equal(1, #report.causes)
    assert.equal("shift", report.causes[1].cause)
    assert.equal(tokens, report.causes[1].tokens_exactly)
    assert.is_truthy(report.causes[1].text:find(text, 1, true), report.causes[1].text)
  end

  it("the values do", function()
    local rest = samebits.zeros({ B, T }, "uint8")
    for b = 0, B - 1 do for t = 1, T - 1 do rest:set(1, b, t) end end
    blames("B is the logprob of A's logits of the position before", B * (T - 1),
           { logits = logits, ids = ids }, whole, { mask = rest })
    blames("A is the logprob of B's logits of the position before", B * (T - 1), whole,
           { logits = logits, ids = ids, mask = rest })
    local plain = plant.logprobs { logits = logits, ids = ids }
    blames("A is the logprob of B's logits of the same position", B * (T - 1), plain,
           { logits = logits, ids = ids }, { shift = true })
  end)

  it("and only they do", function()
    local other = plant.each(whole, function(i, x) return x - (i % 5 + 1) * 0.01 end)
    local report = drift({ logits = logits, ids = ids }, other)
    assert.same({}, report.causes)
  end)
end)

describe("drift, shapes that do not fit:", function()
  local function refuses(words, ...)
    local ok, why = pcall(samebits.drift, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(why):find(words, 1, true), why)
  end

  it("a transposition is named", function()
    local function turned(t) return t:transpose(0, 1):contiguous() end
    refuses("A: logprobs [3, 8] and B: logprobs [8, 3]: one of them looks transposed; tokens " ..
            "are [B, T], logits [B, T, V]", whole, turned(whole))
    refuses("A: logprobs [3, 8] and A: ids [8, 3]: one of them looks transposed",
            { logprobs = whole, ids = turned(ids) }, whole)
    refuses("A: logprobs [3, 8] and A: mask [8, 3]: one of them looks transposed", whole, whole,
            { mask = turned(mask) })
    refuses("A: logprobs [3, 8] and A: logits [8, 3, 60]: one of them looks transposed",
            { logits = turned(logits), logprobs = whole, ids = ids }, whole)
    refuses("A: logits [3, 60, 8] beside ids [3, 8]: the logits look transposed, [B, V, T]",
            { logits = logits:transpose(1, 2):contiguous(), ids = ids }, whole)
    -- Both at once.
    refuses("A: logits [3, 8, 60] and B: logprobs [7, 3]: one of them looks transposed",
            { logits = logits, ids = ids }, turned(values))
  end)

  it("as many sequences as positions are no transposition", function()
    local few, list = logits:slice(1, 0, 4):contiguous(), ids:slice(1, 0, 4):contiguous()
    local short = plant.logprobs { logits = few, ids = list, shift = true }
    equal(9, { logits = few, ids = list }, short:slice(1, 1, 4):contiguous())
  end)

  it("one token less per sequence, where nothing says which", function()
    refuses("A has tokens [3, 8], B has tokens [3, 7]: one less per sequence; give the ids " ..
            "[3, 8] and shift (--shift), if A's are at their ids' positions, or cut A's to [3, 7]",
            whole, values)
    refuses("--shift", { logits = logits, ids = ids, logprobs = whole }, values)
    refuses("shift is off", { logits = logits, ids = ids }, values, { shift = false })
    refuses("without --shift", { logits = logits:slice(1, 0, T - 1):contiguous(), ids = ids },
            values, { shift = true })
    refuses("a kept set a token, [3, 8, 60]", { logits = logits, ids = ids,
            kept = samebits.zeros({ B, T - 1, V }, "uint8") }, values)
  end)

  it("a batch of one, with and without its dimension", function()
    refuses("the same tokens, with and without the batch's dimension", whole[0],
            whole:slice(0, 0, 1))
  end)

  it("logprobs of all ids", function()
    refuses("logprobs: shape [3, 8, 60], expected [B, T] or [N]: one value per id; give " ..
            "log_softmax as logits", { logprobs = logits, ids = ids }, whole)
  end)

  it("what is no mask, by its place in what was given", function()
    local shorter = samebits.zeros({ B, T - 1 }, "int64")
    for t = 1, 3 do shorter:set(t + 1, 1, t + 1) end
    refuses("A: mask[1][4] is 4, after 2 and 3",
            { logits = logits, ids = ids, mask = shorter }, values)
  end)

  it("others as before", function()
    refuses("A has tokens [3, 8], B has tokens [2, 8]: the same ones are needed", whole,
            whole:slice(0, 0, 2))
  end)
end)
