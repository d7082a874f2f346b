-- The roles of the tensors in a file: one rule for commands, batches and drift.

local fields = require "samebits.io.fields"
local samebits = require "samebits"
local hex = require "spec.support.hex"
local refusal = require("spec.support.refusal").misuse
local temporary = require "spec.support.temporary"

local files, logits, ids, mask
local masked -- the logprobs within the mask

setup(function()
  files = temporary.folder()
  logits = hex.tensor(hex.values(2 * 3 * 20, 11), { 2, 3, 20 })
  ids = samebits.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "int64" })
  mask = samebits.tensor({ { 0, 1, 1 }, { 1, 1, 0 } }, { dtype = "uint8" })
  masked = samebits.logprob { logits = logits, ids = ids, mask = mask }
end)
teardown(function() files:remove() end)

local function save(name, value)
  local path = files:path(name)
  os.remove(path)
  assert(samebits.save(path, value))
  return path
end

-- The dump that docs/find-your-drift.md says to make, with more in it.
local function dump()
  return save("dump.safetensors", { logprobs = masked.token, ids = ids, mask = mask,
                                    logits = logits, step = samebits.zeros { 1 } })
end

local function same(got, wanted) assert.same(hex.of(wanted), hex.of(got)) end

describe("a batch of what load gives", function()
  it("takes the tensors that have a role, and tells the others", function()
    local data = assert(samebits.load(dump()))
    same(samebits.logprob(data).token, masked.token)
    assert.matches("\n  not used     logprobs, step\n", tostring(samebits.batch(data)))
    local ctx = assert(samebits.open "cpu")
    same(ctx:logprob(data).token, masked.token)
    assert(ctx:topk(data, 2))
    assert.is_true(samebits.verify(data, { rounds = 1, transforms = { "alone" } }).ok)
  end)

  it("knows the names of trainers and rollout engines", function()
    local data = assert(samebits.load(save("verl.safetensors", {
      logits = logits, responses = ids, response_mask = mask, rollout_log_probs = masked.token,
    })))
    same(samebits.logprob(data).token, masked.token)
  end)

  it("takes what is put into it, too", function()
    local data = assert(samebits.load(dump()))
    data.temperature, data.shift = 0.5, true
    same(samebits.logprob(data).token, samebits.logprob { logits = logits, ids = ids, mask = mask,
                                                          temperature = 0.5, shift = true }.token)
    data.tempreature = 0.7
    assert.matches("batch: unknown field 'tempreature'",
                   refusal(function() samebits.batch(data) end))
  end)

  it("does not choose between two names", function()
    local data = assert(samebits.load(save("two.safetensors", {
      logits = logits, ids = ids, mask = mask, loss_mask = mask,
    })))
    assert.matches("batch: the file holds both mask and loss_mask: say which are the mask",
                   refusal(function() samebits.batch(data) end))
    data.loss_mask = nil
    same(samebits.logprob(data).token, masked.token)
  end)

  it("any other table has no unknown field", function()
    local data = assert(samebits.load(dump()))
    assert.matches("batch: unknown field 'logprobs'", refusal(function()
      samebits.batch { logits = data.logits, ids = data.ids, logprobs = data.logprobs }
    end))
  end)
end)

describe("drift of what load gives", function()
  it("takes the tensors that have a role", function()
    local data = assert(samebits.load(dump()))
    local report = assert(samebits.drift(data, files:path "dump.safetensors"))
    assert.is_true(report.equal)
    assert.same({ 4, 2 }, { report.tokens.compared, report.tokens.inactive })
    assert.same({ "ids", "mask" }, report.a.with)
    assert.same({ "step" }, report.b.unused)
    assert.matches("ids, mask; not used: 'step'\n", report:text { width = 100 })
    report = samebits.drift(files:path "dump.safetensors:logprobs", files:path "dump.safetensors")
    assert.same({ "logits", "step" }, report.a.unused)
  end)

  it("what is said of both sides wins over what their files hold", function()
    local path = dump()
    local all = samebits.tensor({ { 1, 1, 1 }, { 1, 1, 1 } }, { dtype = "uint8" })
    assert.equal(6, samebits.drift(path, path, { mask = all }).tokens.compared)
    assert.equal(6, samebits.drift(assert(samebits.load(path)), path,
                                   { mask = all }).tokens.compared)
    local within = samebits.drift({ logprobs = masked.token, mask = mask }, masked.token,
                                  { mask = all })
    assert.equal(2, within.tokens.only_b)
  end)

  it("a mask beside the ids that are named comes along", function()
    local path = save("logprobs.npy", masked.token)
    assert.equal(4, samebits.drift(path, path, { ids = dump() }).tokens.compared)
  end)
end)

describe("a tensor whose dtype is not supported", function()
  -- A file of tensors, those of int32 marked as uint32.
  local function marked(name, tensors)
    save(name, tensors)
    return files:write(name, (files:read(name):gsub('"I32"', '"U32"')))
  end
  local odd = samebits.zeros({ 2, 3 }, "int32")
  local WHY = "tensor '%s': dtype 'U32' is not supported"

  local function gather(...)
    local ok, gathered, why = pcall(fields.gather, ...)
    if not ok then return nil, tostring(gathered) end
    return gathered, why
  end

  local function complains(name, found, why)
    assert.is_nil(found)
    assert.matches(WHY:format(name), why, 1, true)
  end

  it("is no obstacle where it has no role", function()
    local path = marked("odd.safetensors", { logits = logits, ids = ids, mask = mask, step = odd,
                                             logprobs = masked.token })
    local gathered = assert(gather({ path }, {}))
    assert.same({ path .. ":logprobs", path .. ":step" }, select(2, gathered:places()))
    local data = assert(samebits.load(path))
    same(samebits.logprob(data).token, masked.token)
    assert.matches("\n  not used     logprobs, step\n", tostring(samebits.batch(data)))
    for _, side in ipairs { path, data } do
      local report = assert(samebits.drift(side, path))
      assert.is_true(report.equal)
      assert.same({ "step" }, report.b.unused)
    end
  end)

  it("is no obstacle where another one is named for its role", function()
    local path = marked("odd.safetensors", { logits = logits, ids = ids, mask = odd,
                                             logprobs = masked.token })
    local other = save("mask.npy", mask)
    assert.equal(other, (assert(gather({ path }, { mask = other })):places()).mask)
    assert.equal(other, (assert(gather({ path .. ":logits" }, { mask = other })):places()).mask)
    local data = assert(samebits.load(path))
    for _, side in ipairs { path, data } do
      assert.equal(4, assert(samebits.drift(side, path, { mask = mask })).tokens.compared)
    end
  end)

  it("is complained of where it is used", function()
    local path = marked("odd.safetensors", { logits = logits, logprobs = masked.token, ids = ids,
                                             mask = odd })
    local one, npy = marked("one.safetensors", { x = odd }), save("l.npy", logits)
    complains("mask", gather({ path }, {}))
    complains("mask", gather({ path .. ":logits" }, {}))
    complains("mask", gather({ npy }, { ids = path }))
    complains("mask", gather({ npy }, { mask = path }))
    complains("mask", gather({ path .. ":mask" }, {}))
    complains("x", gather({ one }, {}))
    complains("x", gather({ npy }, { ids = one }))
    complains("x", fields.load_one(one, "ids"))
    complains("mask", fields.load_one(path, "mask"))
    complains("mask", fields.load_one(path .. ":mask", "ids"))
    local data = assert(samebits.load(path))
    complains("mask", nil, refusal(function() samebits.batch(data) end))
    for _, side in ipairs { path, data, path .. ":logprobs", path .. ":mask", data.mask,
                            { logprobs = masked.token, mask = data.mask } } do
      complains("mask", samebits.drift(side, masked.token))
    end
    complains("mask", samebits.drift(masked.token, masked.token, { ids = path }))
    complains("x", samebits.drift(one, masked.token))
    complains("x", samebits.drift(masked.token, masked.token, { ids = one }))
  end)
end)

describe("gathering", function()
  local function gather(...) return assert(fields.gather(...)) end
  local function roles(gathered)
    local list = {}
    for role in pairs(gathered.fields) do list[#list + 1] = role end
    table.sort(list)
    return table.concat(list, " ")
  end

  it("a file given whole gives all that has a role", function()
    local kept = samebits.zeros({ 2, 3, 1 }, "int32")
    local path = save("whole.safetensors", {
      logits = logits, ids = ids, mask = mask, kept = kept, temperature = samebits.tensor { 1, 2 },
      lse = masked.lse,
    })
    local gathered = gather({ path }, {})
    assert.equal("ids kept logits mask temperature", roles(gathered))
    local used, unused = gathered:places()
    assert.equal(path .. ":kept", used.kept)
    assert.same({ path .. ":lse" }, unused)
    assert.same({
      "logits       float32 [2, 3, 20]  " .. path .. ":logits",
      "ids          int64 [2, 3]        " .. path .. ":ids",
      "mask         uint8 [2, 3]        " .. path .. ":mask",
      "temperature  float32 [2]         " .. path .. ":temperature",
      "kept         int32 [2, 3, 1]     " .. path .. ":kept",
      "shift        yes",
      "not used     " .. path .. ": lse",
    }, gathered:lines { { "shift", "yes" } })
    -- One tensor of it brings what says which tokens it is about, not how it was scored.
    assert.equal("ids logits mask", roles(gather({ path .. ":logits" }, {})))
    assert.equal("ids logits mask", roles(gather({ save("logits.npy", logits) }, { ids = path })))
    -- The logits by an option are the same as the file.
    assert.equal("ids kept logits mask temperature", roles(gather({}, { logits = path })))
    assert.equal("ids logits mask", roles(gather({}, { logits = path .. ":logits" })))
  end)

  it("lists of kept ids by the names of engines", function()
    local list, offsets = samebits.kept_lists(samebits.zeros({ 2, 3, 20 }, "bool"), 20)
    local path = save("lists.safetensors", { logits = logits, ids = ids, kept_ids = list,
                                             ["sampling_mask.offsets"] = offsets })
    local gathered = gather({ path }, {})
    assert.equal("ids kept_ids kept_offsets logits", roles(gathered))
    assert.equal("nan", tostring(samebits.logprob(gathered.fields).token:get(0, 0)):match "nan")
    assert.equal(7, samebits.batch(assert(samebits.load(path))).kept_offsets.shape[1])
  end)

  it("what is named wins", function()
    local path, other = dump(), save("mask.npy", mask)
    local gathered = gather({ path }, { mask = other, temperature = true })
    assert.equal(other, (gathered:places()).mask)
    assert.same({ path .. ":logprobs", path .. ":mask", path .. ":step" },
                select(2, gathered:places()))
    -- Of two masks, too.
    path = save("masks.safetensors", { logits = logits, ids = ids, mask = mask, loss_mask = mask })
    assert.equal(path .. ":loss_mask",
                 (gather({ path }, { mask = path .. ":loss_mask" }):places()).mask)
    assert.equal(path .. ":loss_mask",
                 (gather({}, { logits = path, mask = path .. ":loss_mask" }):places()).mask)
  end)

  it("tells .npy files by what they hold", function()
    local l, i = save("l.npy", logits), save("i.npy", ids)
    for _, order in ipairs { { l, i }, { i, l } } do
      local used = gather(order, {}):places()
      assert.same({ logits = l, ids = i }, used)
    end
  end)

  it("does not choose between two files", function()
    local path, l = dump(), save("l.npy", logits)
    local ok, why = pcall(fields.gather, { path, l }, {})
    assert.is_false(ok)
    assert.equal(path .. ":logits and " .. l .. " would both be the logits: say what they are " ..
                 "by options (--ids, --mask, ...)", tostring(why))
    local other = save("other.safetensors", { logits = logits })
    ok, why = pcall(fields.gather, { path, other }, {})
    assert.is_false(ok)
    assert.equal(path .. ":logits and " .. other .. ":logits are both logits: name the one that " ..
                 "is meant by --logits", tostring(why))
    assert.equal("ids logits mask", roles(gather({ path, path }, {})))
    ok, why = pcall(fields.gather, { path .. ":logprobs" }, {})
    assert.is_false(ok)
    assert.matches("dump.safetensors:logprobs: by their name these are logprobs", tostring(why))
  end)
end)

describe("FILE[:NAME]", function()
  local t, u = samebits.tensor({ 1, 2 }, { dtype = "int32" }), samebits.tensor { 3, 4 }

  it("means a whole path, then a name, then the role, then the only tensor", function()
    local two = save("two.safetensors", { ids = t, other = u })
    local one = save("one.safetensors", { other = t })
    assert(samebits.same_bits(t, fields.load_one(two, "ids")))
    assert(samebits.same_bits(u, fields.load_one(two .. ":other", "ids")))
    assert(samebits.same_bits(t, fields.load_one(one, "ids")))
    assert(os.rename(one, two .. ":ids"))
    assert(samebits.same_bits(t, fields.load_one(two .. ":ids", "ids")))
    os.remove(two .. ":ids")
    local found, why = fields.load_one(two, "mask")
    assert.is_nil(found)
    assert.matches("two.safetensors: no mask in it; it holds 'ids', 'other': say which is " ..
                   "meant, as .*two.safetensors:NAME", why)
    found, why = fields.load_one(save("none.safetensors", {}), "mask")
    assert.is_nil(found)
    assert.matches("holds no tensor", why)
  end)

  it("the only tensor is not taken for what it cannot be", function()
    for name, value in pairs { other = u, logits = u, mask = t } do
      local found, why = fields.load_one(save("one.safetensors", { [name] = value }), "ids")
      assert.is_nil(found)
      assert.matches("no ids in it; it holds '" .. name .. "'", why)
    end
  end)
end)
