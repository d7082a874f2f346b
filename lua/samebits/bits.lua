--- Compares bits: whether they are the same, and how far apart two values are.
--
-- Encodings are compared, not values: +0 and -0 differ, NaNs with equal bits do not.
--
-- The distance of two values, in ULPs, is the number of steps between them on the ordered line of
-- the dtype's values (including infinities; +0 and -0 are in one place). The distance of integers
-- is their difference. NaN has no place on the line.
-- @module samebits.bits

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local dtype, element, layout = tensor.dtype, tensor.element, tensor.layout

ffi.cdef [[
int samebits_libc_memcmp(const void *, const void *, size_t) __asm__("memcmp");
]]

local M = {}

-- The number of elements that are compared at once. Only blocks that differ are scanned one by one.
local BLOCK = 4096

-- scan(a, b, first, n, allowed) returns how many of the elements differ, the first one that does,
-- the largest distance, how many of the pairs hold a NaN, and the first one with that distance. If
-- `allowed` is given, elements that are at most that far apart do not differ. -1 stands for an
-- element that does not exist. This text becomes one compiled loop per dtype.
local SCAN = [[
local ffi, bit, WORD, NAN = ...
local band, cast, abs = bit.band, ffi.cast, math.abs
local uint64 = ffi.typeof("uint64_t")

local function place(w) PLACE end

local function scan(a, b, first, n, allowed)
  local p, q = cast(WORD, a), cast(WORD, b)
  local count, at, largest, nans, worst = 0, -1, ZERO, 0, -1
  for k = first, first + n - 1 do
    local x, y = p[k], q[k]
    if x ~= y then
      local far = true
      if ISNAN then
        nans = nans + 1
      else
        local i, j = place(x), place(y)
        local d = DISTANCE
        far = not allowed or d > allowed
        if far and (worst < 0 or d > largest) then largest, worst = d, k end
      end
      if far then
        count = count + 1
        if at < 0 then at = k end
      end
    end
  end
  return count, at, largest, nans, worst
end
return scan
]]

-- Converts sign and magnitude to a place on the line, for encodings of each size.
local FLOAT_PLACE = {
  [2] = "return w < 0x8000 and w or 0x8000 - w",
  [4] = "return w >= 0 and w or -band(w, 0x7fffffff)",
  [8] = "return w >= 0 and w or -band(w, 0x7fffffffffffffffLL)",
}
local FLOAT_WORD = { [2] = "uint16_t *", [4] = "int32_t *", [8] = "int64_t *" }
local INFINITY = { float16 = 0x7c00, bfloat16 = 0x7f80, float32 = 0x7f800000,
                   float64 = 0x7ff0000000000000LL }
local MAGNITUDE = { [2] = "0x7fff", [4] = "0x7fffffff", [8] = "0x7fffffffffffffffLL" }

local function make_scan(name)
  local description = dtype.of[name]
  local size, float = description.size, description.kind == "float"
  local parts = {
    PLACE = float and FLOAT_PLACE[size] or "return w",
    ISNAN = "false",
    ZERO = size == 8 and "0ULL" or "0",
    DISTANCE = size == 8 and "i > j and cast(uint64, i) - cast(uint64, j) or " ..
               "cast(uint64, j) - cast(uint64, i)" or "abs(i - j)",
  }
  if float then
    parts.ISNAN = ("band(x, M) > NAN or band(y, M) > NAN"):gsub("M", MAGNITUDE[size])
  end
  local word = float and ffi.typeof(FLOAT_WORD[size]) or element.pointer[name]
  local source = SCAN:gsub("%u+", parts)
  return assert(loadstring(source, "=scan_" .. name))(ffi, require "bit", word, INFINITY[name])
end

local scans = setmetatable({}, { __index = function(self, name)
  self[name] = make_scan(name)
  return self[name]
end })

-- A distance as a Lua number if a number holds it exactly.
local function plain(distance)
  if type(distance) == "cdata" and distance <= 2ULL ^ 53 then return tonumber(distance) end
  return distance
end

local function ulps_text(ulps)
  if not ulps then return "no distance (NaN)" end
  return ("%s ULP%s"):format(element.text(ulps), ulps == 1 and "" or "s")
end

local Report = {}
Report.__index = Report

--- Returns the report's message, one line.
function Report:__tostring() return self.message end

local function unlike(what, a, b)
  return setmetatable({ message = ("%s differ: %s and %s"):format(what, a, b) }, Report)
end

-- Checks two tensors and returns them in memory, of one dtype and shape; or nil and a report.
local function alike(what, a, b)
  local given = { a, b }
  for i = 1, 2 do
    local t = given[i]
    if not tensor.is_tensor(t) then
      misuse.raise("%s: argument %d is %s, not a tensor", what, i, element.text(t))
    end
    if t.device ~= "cpu" then
      local copy, message = t:to "cpu"
      if not copy then misuse.raise("%s: argument %d: %s", what, i, message) end
      given[i] = copy
    end
  end
  a, b = given[1], given[2]
  if a.dtype ~= b.dtype then return nil, unlike("dtypes", a.dtype, b.dtype) end
  local shape_a, shape_b = layout.text(a.shape), layout.text(b.shape)
  if shape_a ~= shape_b then return nil, unlike("shapes", shape_a, shape_b) end
  return a, b
end

-- An element of a pair of tensors, for a report.
local function pair_at(a, p, q, flat)
  local name, size = a.dtype, a.itemsize
  local read, hex = element.read[name], element.hex[size]
  local _, _, distance, nans = scans[name](p, q, flat, 1)
  return {
    flat = flat, index = layout.index(flat, a.shape), a = read(p, flat), b = read(q, flat),
    a_hex = hex(p, flat), b_hex = hex(q, flat), ulps = nans == 0 and plain(distance) or nil,
  }
end

local function pair_text(name, pair)
  return ("at %s: %s and %s (%s and %s)"):format(layout.text(pair.index), pair.a_hex, pair.b_hex,
    element.value_text(name, pair.a), element.value_text(name, pair.b))
end

-- Whether no element differs by more than `allowed` (if it is nil, whether no element differs);
-- otherwise also a report.
local function compare(what, a, b, allowed)
  a, b = alike(what, a, b)
  if not a then return false, b end
  local name, size, total = a.dtype, a.itemsize, a:numel()
  local x, y = a:contiguous(), b:contiguous()
  local p, q = x.ptr, y.ptr
  local scan = scans[name]
  local count, at, largest, nans, worst = 0, -1, size == 8 and 0ULL or 0, 0, -1
  for first = 0, total - 1, BLOCK do
    local n = math.min(BLOCK, total - first)
    if ffi.C.samebits_libc_memcmp(p + first * size, q + first * size, n * size) ~= 0 then
      local c, f, d, nan, w = scan(p, q, first, n, allowed)
      count, nans = count + c, nans + nan
      if at < 0 then at = f end
      if w >= 0 and (worst < 0 or d > largest) then largest, worst = d, w end
    end
  end
  if count == 0 then
    tensor.storage.keep(x, y)
    return true
  end

  local first = pair_at(a, p, q, at)
  local report = { count = count, total = total, nans = nans, first = first }
  report.message = ("%d of %d elements differ%s (%s %s); first %s, %s"):format(
    count, total, allowed and " by more than " .. ulps_text(allowed) or "", name,
    layout.text(a.shape), pair_text(name, first), ulps_text(first.ulps))
  if worst >= 0 then
    report.worst, report.max_ulps = pair_at(a, p, q, worst), plain(largest)
    if count > 1 then
      report.message = ("%s; at most %s%s"):format(report.message, ulps_text(report.max_ulps),
        worst ~= at and ", " .. pair_text(name, report.worst) or "")
    end
  end
  if nans > 0 then
    report.message = report.message .. ("; %d with NaN"):format(nans)
  end
  tensor.storage.keep(x, y)
  return false, setmetatable(report, Report)
end

--- Whether two tensors, on any devices, have the same dtype, shape and bits. Returns true; or false
-- and a report:
--
-- * `message`: the whole report in one line, which tostring(report) also returns;
-- * `count` of `total` elements differ, `nans` of them with a NaN on either side;
-- * `first`: the first different element's `index` (a list), `flat` (the number of elements before
--   it), `a_hex` and `b_hex`, `a` and `b` as `get` returns them, and `ulps`, nil if either is a
--   NaN;
-- * `max_ulps`: the largest distance, and `worst`, the first element at that distance, with the
--   same fields as `first`; nil if every pair has a NaN.
--
-- Distances beyond 2^53 are uint64_t. If dtypes or shapes differ, the report has only the message.
-- @tparam tensor a
-- @tparam tensor b
-- @treturn boolean whether they are the same
-- @treturn table the report, if they are not
M.same_bits = misuse.guard(function(a, b) return compare("same_bits", a, b) end)

-- Distances of 64-bit elements are uint64_t, and so is the limit that they are compared with.
local function allowed_of(n, size)
  if type(n) ~= "number" or not (n >= 0 and n <= 2 ^ 53) or n % 1 ~= 0 then
    misuse.raise("within_ulps: expected a number of ULPs, an integer of at least 0, got %s",
                 element.text(n))
  end
  return size == 8 and ffi.cast("uint64_t", n) or n
end

--- The same as `same_bits`, but elements that are at most n ULPs apart do not differ (nor do NaNs
-- of equal bits). +0 and -0 are 0 ULPs apart.
-- @tparam tensor a
-- @tparam tensor b
-- @tparam number n
-- @treturn boolean whether they are near
-- @treturn table the report, if they are not
M.within_ulps = misuse.guard(function(a, b, n)
  return compare("within_ulps", a, b, allowed_of(n, tensor.is_tensor(a) and a.itemsize))
end)

local scratch = tensor.zeros({ 2 }, "int64")
local words = tensor.zeros({ 2 }, "int64")

local function put(what, name, k, v)
  local description, message = dtype.find(name)
  if not description then misuse.raise("%s: %s", what, message) end
  local ok, why = element.put(name, scratch.ptr, k, v)
  if not ok then misuse.raise("%s: the value %s", what, why) end
  return description
end

--- Returns the distance of two Lua values, each first rounded to the dtype ("float32" by default);
-- nil if either is NaN.
-- @tparam number a
-- @tparam number b
-- @tparam[opt] string name of a dtype
-- @treturn number the distance
M.ulp = misuse.guard(function(a, b, name)
  name = name or "float32"
  put("ulp", name, 0, a)
  put("ulp", name, 1, b)
  -- Copied, as in C, because a compiled trace may read words before the float that was stored
  -- there.
  ffi.copy(words.ptr, scratch.ptr, 16)
  local _, _, distance, nans = scans[name](words.ptr, words.ptr + dtype.of[name].size, 0, 1)
  -- Two NaNs have equal bits here, because every NaN is stored with the same bits.
  if nans > 0 or a ~= a or b ~= b then return nil end
  return plain(distance)
end)

--- Returns the bits of a Lua value in a dtype, "float32" by default: hex(-math.log(2)) is
-- "bf317218".
-- @tparam number v
-- @tparam[opt] string name of a dtype
-- @treturn string hex digits
M.hex = misuse.guard(function(v, name)
  local description = put("hex", name or "float32", 0, v)
  return element.hex[description.size](scratch.ptr, 0)
end)

--- Returns the Lua value of bits.
-- @tparam string digits
-- @tparam[opt] string name of a dtype
-- @treturn number the value
M.from_hex = misuse.guard(function(digits, name)
  local description, message = dtype.find(name or "float32")
  if not description then misuse.raise("from_hex: %s", message) end
  local ok, why = element.put_hex(description.size, scratch.ptr, 0, digits)
  if not ok then misuse.raise("from_hex: the value %s", why) end
  return element.read[description.name](scratch.ptr, 0)
end)

return M
