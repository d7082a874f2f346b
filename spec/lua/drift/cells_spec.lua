-- samebits.drift.cells: the packed tokens of a page, unpacked again as its script does.

local ffi = require "ffi"
local cells = require "samebits.drift.cells"
local plant = require "spec.support.plant"
local prng = require "spec.support.prng"
local samebits = require "samebits"
local stores = require "samebits.drift.store"

local DIGITS = {}
for i, c in ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):gmatch "()(.)" do
  DIGITS[c:byte()] = i - 1
end

-- The bytes of a stream: functions `more`, `byte`, `number`, `word`.
local function reader(text)
  local bytes = {}
  for i = 1, #text, 4 do
    local x, n = 0, 3
    for k = i, i + 3 do
      local digit = DIGITS[text:byte(k)]
      if not digit then n, digit = n - 1, 0 end
      x = x * 64 + digit
    end
    for k = 1, n do bytes[#bytes + 1] = math.floor(x / 256 ^ (3 - k)) % 256 end
  end
  local self, at = {}, 0
  function self.more() return at < #bytes end
  function self.byte()
    at = at + 1
    return bytes[at]
  end
  function self.number()
    local x, scale = 0, 1
    repeat
      local b = self.byte()
      x, scale = x + b % 128 * scale, scale * 128
    until b < 128
    return x
  end
  function self.word()
    local w = 0
    for k = 0, 3 do w = w + self.byte() * 256 ^ k end
    return bit.tobit(w)
  end
  return self
end

local function order(w) return w >= 0 and w or -bit.band(w, 0x7fffffff) - 1 end

-- The codes of the map, and the tokens with values by row.
local function unpacked(packed)
  local codes, tokens, ids = {}, {}, {}
  local from = reader(packed.cells)
  while from.more() do
    local code = from.byte()
    for _ = 1, from.number() do codes[#codes + 1] = code end
  end
  from = reader(packed.ids)
  while from.more() do
    local id = from.number()
    ids[#ids + 1] = id % 2 == 0 and id / 2 or -(id + 1) / 2
  end
  from = reader(packed.values)
  local row = -1
  while from.more() do
    row = row + from.number() + 1
    local token = { code = from.byte(), id = ids[from.number()], a = from.word() }
    local far = from.number()
    token.far = far % 2 == 0 and far / 2 or -(far + 1) / 2
    tokens[row] = token
  end
  return codes, tokens
end

local function count(t)
  local n = 0
  for _ in pairs(t) do n = n + 1 end
  return n
end

-- Values of both signs, so that distances pass 2^31; every third token is equal.
local function dump(shape, seed)
  local random = prng.new(seed)
  local a, b, ids = samebits.zeros(shape), samebits.zeros(shape), samebits.zeros(shape, "int32")
  local p, q = ffi.cast("float *", a.ptr), ffi.cast("float *", b.ptr)
  local id = ffi.cast("int32_t *", ids.ptr)
  for i = 0, a:numel() - 1 do
    p[i] = random:normal()
    q[i] = i % 3 == 0 and p[i] or p[i] + 0.1 * random:normal()
    id[i] = random:integer(0, 150000)
  end
  return a, b, ids
end

describe("packed tokens", function()
  it("read back: every token where there is room", function()
    local a, b, ids = dump({ 6, 400 }, 3)
    local mask = samebits.zeros({ 6, 400 }, "uint8")
    for s = 0, 5 do for t = 0, 399 - 20 * s do mask:set(1, s, t) end end
    local report = samebits.drift({ logprobs = a, ids = ids, mask = mask }, { logprobs = b })
    local packed = cells.pack(report, 1e6)
    local codes, tokens = unpacked(packed)
    assert.same({ 6, 400, 1, 1, 2400 },
                { packed.rows, packed.columns, packed.per_row, packed.per_column, #codes })
    assert.equal(report.tokens.compared, packed.held)
    assert.equal(packed.held, count(tokens))
    assert.equal("", packed.sizes)
    local store = report.store
    for row = 0, store.rows - 1 do
      local token, state = tokens[row], store.state[row]
      assert.equal(state == stores.INACTIVE, token == nil)
      if token then
        assert.equal(store.a[row], token.a)
        assert.equal(order(store.b[row]) - order(store.a[row]), token.far)
        assert.equal(tonumber(ids:get(math.floor(row / 400), row % 400)), token.id)
        assert.equal(state == stores.EQUAL and 2 or 6, token.code)
      end
      assert.equal(token and token.code or 1, codes[row + 1])
    end
  end)

  it("read back where single distances pass 2^31, among many small ones", function()
    local random, n = prng.new(9), 6000
    local a, b, ids = samebits.zeros({ n }), samebits.zeros({ n }), samebits.zeros({ n }, "int32")
    local p, q = ffi.cast("float *", a.ptr), ffi.cast("float *", b.ptr)
    local id = ffi.cast("int32_t *", ids.ptr)
    for i = 0, n - 1 do
      p[i] = -0.01 - math.abs(random:normal())
      q[i] = i % 700 == 699 and 0.0124 or p[i] * (1 + 0.02 * random:normal())
      id[i] = random:integer(0, 40000)
    end
    local report = samebits.drift({ logprobs = a, ids = ids }, { logprobs = b })
    local _, tokens = unpacked(cells.pack(report, 1e6))
    for row = 0, n - 1 do
      local token, store = tokens[row], report.store
      assert.equal(order(store.b[row]) - order(store.a[row]), token and token.far, row)
    end
  end)

  it("have the values of those furthest apart where there is little room", function()
    local a, b = dump({ 2000 }, 4)
    local report = samebits.drift(a, b)
    local packed = cells.pack(report, 12000)
    local codes, tokens = unpacked(packed)
    assert.equal(2000, #codes)
    assert.is_true(packed.held > 300 and packed.held < 1000, packed.held)
    assert.is_true(#packed.values + #packed.cells + #packed.sizes <= 12000)
    -- A size for each other token that differs.
    local least, most, rest = math.huge, 0, 0
    for row = 0, 1999 do
      local size = math.abs(b:get(row) - a:get(row))
      if tokens[row] then
        least = math.min(least, size)
      elseif report.store.state[row] == stores.DIFFERENT then
        most, rest = math.max(most, size), rest + 1
      end
    end
    assert.is_true(most <= least * 1.13, ("%g %g"):format(most, least))
    local sizes = reader(packed.sizes)
    for _ = 1, rest do assert.is_true(sizes.byte() <= 201) end
    assert.is_false(sizes.more())
  end)

  it("stand in blocks where the map would be too large, the worst in each", function()
    local shape = { 600, 20 }
    local a = plant.each(samebits.zeros(shape), function() return -1 end)
    local b = a:clone()
    b:set(-1.5, 599, 19)
    b:set(-1.25, 598, 19)
    local packed = cells.pack(samebits.drift(a, b), 1e6)
    local codes, tokens = unpacked(packed)
    assert.same({ 300, 20, 2, 1 },
                { packed.rows, packed.columns, packed.per_row, packed.per_column })
    assert.equal(6, codes[300 * 20])
    assert.equal(2, codes[300 * 20 - 1])
    assert.equal(12000, count(tokens))
    assert.equal(194, reader(packed.sizes).byte()) -- 201 + 20 * log10(0.5), rounded down
  end)

  it("have the lengths of packed sequences, and no token behind their ends", function()
    local report = samebits.drift({ -1, -2, -3, -4, -5 }, { -1, -2, -3, -4, -6 },
                                  { cu_seqlens = { 0, 3, 3, 5 } })
    local packed = cells.pack(report, 1e6)
    assert.same({ 3, 0, 2 }, packed.lengths)
    assert.same({ 2, 2, 2, 0, 0, 0, 2, 6, 0 }, (unpacked(packed)))
  end)

  it("do not make a page of 100 000 tokens larger than 1 MB", function()
    local a, b, ids = dump({ 125, 800 }, 5)
    local page = samebits.drift({ logprobs = a, ids = ids }, { logprobs = b }):html()
    assert.is_true(#page <= 1e6, #page)
    assert.is_true(#page > 9e5, #page)
  end)
end)
