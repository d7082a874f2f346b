--- The wording of a report's numbers and tokens, the same in the terminal and on the page.

local ffi = require "ffi"
local printable = require "samebits.text.printable"
local refusal = require "samebits.io.refusal"

local M = {}

--- Formats 1234567 as "1 234 567"; a number that is not an integer stays as it is.
function M.count(n)
  local digits = ("%.0f"):format(n)
  if #digits <= 4 then return digits end
  return (digits:reverse():gsub("(%d%d%d)", "%1 "):reverse():gsub("^ ", ""))
end

--- Formats a number with three digits, or a non-finite value in words.
function M.number(x)
  if x ~= x then return "NaN" end
  if x == math.huge then return "inf" elseif x == -math.huge then return "-inf" end
  if x == 0 then return "0" end
  return (("%.3g"):format(x):gsub("e([+-])0*", "e%1"):gsub("e%+", "e"))
end

--- Formats a number with nine digits, which read back to the same fp32.
function M.exact(x)
  if x ~= x then return "NaN" end
  if x == math.huge then return "inf" elseif x == -math.huge then return "-inf" end
  return ("%.9g"):format(x)
end

--- Formats a ratio with few digits; near 1, as its distance from 1.
function M.near_one(x)
  local off = x - 1
  if off == 0 or math.abs(off) >= 0.01 or x ~= x then return M.number(x) end
  return ("1 %s %s"):format(off < 0 and "-" or "+", M.number(math.abs(off)))
end

--- Formats a share in percent: 0 and 100 appear only where they are exact.
function M.percent(part, whole)
  if whole == 0 or part == 0 then return "0 %" end
  if part == whole then return "100 %" end
  local share = 100 * part / whole
  if share < 0.01 then return "< 0.01 %" elseif share > 99.99 then return "> 99.99 %" end
  return ("%.3g %%"):format(share)
end

function M.ulps(n)
  if not n then return "NaN" end
  return M.count(n) .. (n == 1 and " ULP" or " ULPs")
end

--- Returns the range of a bucket of ULPs.
function M.ulp_range(bucket)
  if bucket.low == bucket.high then return ("%d"):format(bucket.low) end
  if bucket.high <= 4096 then return ("%d .. %d"):format(bucket.low, bucket.high) end
  local octave = math.floor(math.log(bucket.high) / math.log(2) + 0.5)
  return ("2^%d .. 2^%d"):format(octave - 1, octave)
end

--- Replaces a run of two or more empty rows, of rows { label, count }, by one with the label "..."
-- and no count.
function M.folded(rows)
  local out = {}
  for i, row in ipairs(rows) do
    local function empty(k) return rows[k] ~= nil and rows[k][2] == 0 end
    if not (empty(i) and (empty(i - 1) or empty(i + 1))) then
      out[#out + 1] = row
    elseif not empty(i - 1) then
      out[#out + 1] = { "..." }
    end
  end
  return out
end

--- Returns the range of a bucket of differences.
function M.difference_range(bucket)
  if bucket.high == 0 then return "0" end
  local function power(x)
    if x == 1 or x == 10 then return ("%d"):format(x) end
    return "1e" .. math.floor(math.log10(x) + 0.5)
  end
  if bucket.high == math.huge then return ">= " .. power(bucket.low) end
  if bucket.low == 0 then return "< " .. power(bucket.high) end
  return power(bucket.low) .. " .. " .. power(bucket.high)
end

M.CAUSES = {
  id = "target id", mask = "mask", temperature = "temperature", kept = "kept set",
  top_k = "top-k", top_p = "top-p", padding = "vocabulary padding", settings = "several settings",
  shift = "shift", zeros = "zeros", negated = "sign", log2 = "base 2", log10 = "base 10",
  probability = "probabilities", reversed = "order", container = "container dtype",
  position = "position", target = "target logit",
  lse = "other logits (lse)", op = "the op", logits = "the logits",
  op_and_logits = "logits and op", unexplained = "unexplained",
}

-- The fewest digits that read back to the same fp32.
local function shortest(x)
  local one = ffi.new("float[2]", x)
  for digits = 6, 9 do
    local text = ("%%.%dg"):format(digits):format(x)
    one[1] = tonumber(text)
    if one[1] == one[0] then return text end
  end
end

-- A whole number, which may be a string of digits; nil means none.
local function whole(x)
  if x == nil then return "none" end
  return type(x) == "string" and x or ("%.0f"):format(x)
end

local INPUTS = { ids = "ids", mask = "masks", cu_seqlens = "cu_seqlens",
                 temperature = "temperatures", kept = "kept sets" }

local function only(a) return a and "in A, not in B" or "in B, not in A" end

--- Returns a sentence about an input that differs.
function M.input(input)
  local name, first = INPUTS[input.field], input.first
  if input.field == "cu_seqlens" then
    return ("The cu_seqlens differ in %s of %s entries, first in entry %d: %s in A, %s in B.")
      :format(M.count(input.different), M.count(input.of), first.index, whole(first.a),
              whole(first.b))
  end
  local there
  if input.field == "mask" then
    there = "it counts " .. only(first.a)
  elseif input.field == "kept" then
    there = ("id %d is kept %s"):format(first.id, only(first.a))
  else
    local form = input.field == "ids" and whole or shortest
    there = ("%s in A, %s in B"):format(form(first.a), form(first.b))
  end
  return ("The %s differ at %s of %s tokens, first at sequence %d, position %d: %s."):format(name,
    M.count(input.different), M.count(input.of), first.sequence, first.position, there)
end

--- Returns the names of the inputs that differ: "ids and masks".
function M.inputs(report)
  local names = {}
  for i, input in ipairs(report.inputs) do names[i] = INPUTS[input.field] end
  if #names < 2 then return names[1] end
  return table.concat(names, ", ", 1, #names - 1) .. " and " .. names[#names]
end

--- Returns one line about the contents of a side.
function M.side(side, shape)
  local parts = {}
  local dims = table.concat(side.shape or shape, ", ")
  if side.logprobs then
    parts[#parts + 1] = ("logprobs %s [%s]"):format(side.dtype, dims)
  end
  if side.logits then
    parts[#parts + 1] = ("logits %s [%s, %d]"):format(side.logits_dtype, dims, side.vocab)
    if type(side.temperature) ~= "number" then
      parts[#parts + 1] = "a temperature per token"
    elseif side.temperature ~= 1 then
      parts[#parts + 1] = ("temperature %.9g"):format(side.temperature)
    end
    if side.kept then parts[#parts + 1] = "kept sets" end
  end
  for _, role in ipairs(side.with) do parts[#parts + 1] = role end
  local text = table.concat(parts, ", ")
  if #side.unused == 0 then return text end
  local names = {}
  for i, name in ipairs(side.unused) do names[i] = refusal.quote(name) end
  return ("%s; not used: %s"):format(text, table.concat(names, ", "))
end

--- Returns the text of a token in quotes, which show its spaces.
function M.token(text) return '"' .. printable.text(text) .. '"' end

--- Returns a side's name and its source.
function M.title(side)
  local name, source = side.name, side.source
  local title = name and source and ("%s (%s)"):format(name, source) or name or source
  return title and printable.text(title) or "side " .. side.label
end

--- Returns a sentence about the tokens that nothing explains.
function M.unexplained(report)
  local out = (report.a.logits or report.b.logits) and
              "Nothing that was tried gives these values." or
              "Only logprobs were given: with the logits of a side, temperatures, kept sets, " ..
              "padding and the op can be tried."
  local small = report.unexplained_small
  if small == 0 then return out end
  return ("%s %s of them differ by %s nats or less: as small as the rounding of another op, or " ..
          "of logits that differ."):format(out, small == report.unexplained and "All" or
                                           M.count(small), M.number(report.near))
end

--- Returns a list of sentences about the op and the logits.
function M.facts(report)
  local out = {}
  local logits = report.logits
  if logits then
    local where = logits.columns and (", in the first %s columns, which both sides have"):format(
      M.count(logits.columns)) or ""
    if logits.different == 0 then
      out[1] = ("The logits of both sides are the same numbers in all %s rows%s."):format(
        M.count(logits.compared), where)
    else
      out[1] = ("The logits already differ in %s of %s rows%s."):format(
        M.count(logits.different), M.count(logits.compared), where)
    end
  end
  for _, side in ipairs { report.a, report.b } do
    local op = report.op[side.label:lower()]
    if op then
      local scope = ("%s token%s that differ"):format(M.count(op.checked), op.checked == 1 and "" or
                                                                           "s")
      if op.different == 0 then
        out[#out + 1] = ("%s has the contract's bits for its logits at the %s."):format(side.label,
                                                                                        scope)
      else
        out[#out + 1] = ("%s is not the contract's value of its own logits at %s of the %s " ..
                         "(by up to %s)."):format(side.label, M.count(op.different), scope,
                                                  M.ulps(op.max_ulps))
      end
    end
  end
  return out
end

--- Returns how many tokens a clip would take by drift alone: "3 of 41 (7.32 %): 1 below, 2 above".
function M.clip(clip, report)
  local n = clip.below + clip.above
  local out = ("%s of %s (%s)"):format(M.count(n), M.count(report.finite),
                                       M.percent(n, report.finite))
  if n == 0 then return out end
  return ("%s: %s below, %s above"):format(out, M.count(clip.below), M.count(clip.above))
end

--- Returns a sentence about values that are no finite numbers; nil if there are none.
function M.not_finite(report)
  local odd = report.not_finite
  if odd.tokens == 0 then return nil end
  local parts = {}
  for _, label in ipairs { "A", "B" } do
    local side, kinds = odd[label:lower()], {}
    for _, kind in ipairs { { "nan", "NaN" }, { "minus_infinite", "-inf" },
                            { "plus_infinite", "+inf" } } do
      if side[kind[1]] > 0 then
        kinds[#kinds + 1] = ("%s %s"):format(M.count(side[kind[1]]), kind[2])
      end
    end
    if #kinds > 0 then
      parts[#parts + 1] = ("%s has %s"):format(label, table.concat(kinds, ", "))
    end
  end
  return ("%s of %s tokens (%s) are not finite on a side: %s. Ratios leave them out."):format(
    M.count(odd.tokens), M.count(report.tokens.compared),
    M.percent(odd.tokens, report.tokens.compared), table.concat(parts, "; "))
end

local function held(side, given)
  if side.dtype == (given or "float32") then return side.dtype end
  return ("%s (stored as %s)"):format(side.dtype, given)
end

--- Returns sentences about the noise floor: what rounding to the containers alone may do.
function M.noise(report)
  local noise, out = report.noise, {}
  local a, b = held(noise.a, report.a.dtype), held(noise.b, report.b.dtype)
  local what = a == b and ("Both sides' logprobs are " .. a) or
               ("A's logprobs are %s, B's %s"):format(a, b)
  out[1] = ("%s: rounding to that alone moves a difference by up to %s nats, %s on average.")
    :format(what, M.number(noise.max), M.number(noise.mean))
  if report.tokens.different > 0 then
    out[2] = ("Of the %s token%s that differ%s, %s within %s own rounding."):format(
      M.count(report.tokens.different), report.tokens.different == 1 and "" or "s",
      report.tokens.different == 1 and "s" or "", noise.within == 0 and "none is" or
      noise.within == 1 and "1 is" or M.count(noise.within) .. " are",
      noise.within < 2 and "its" or "their")
  end
  for _, clip in ipairs(report.clips) do
    if clip.eps < noise.mean then
      out[#out + 1] = ("A clip of %s is below that floor: it would clip by the container."):format(
        M.number(clip.eps))
    end
  end
  return out
end

--- Returns a list of { label, text }: when, where and by what a report was made. digits: of the
-- files' digests, 64 by default.
function M.made(report, digits)
  local made = report.made
  local out = {
    { "date", made.date }, { "host", made.host or "unknown" }, { "system", made.system },
    { "samebits", ("%s, numerics %d; %s; %s"):format(made.version, made.numerics, made.backend,
                                                     made.luajit) },
  }
  if made.command then table.insert(out, 1, { "command", printable.text(made.command) }) end
  for i, file in ipairs(report.files) do
    out[#out + 1] = { i == 1 and "files" or "", M.file(file, digits) }
  end
  return out
end

--- Returns a file's path, size and digest, cut to a number of digits.
function M.file(file, digits)
  return ("%s, %s bytes, %s"):format(printable.text(file.path), M.count(file.size), file.sha256 and
    "sha256 " .. file.sha256:sub(1, digits or 64) or "not hashed")
end

return M
