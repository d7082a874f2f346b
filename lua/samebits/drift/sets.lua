--- Finds the top-k or top-p that turns one side's logits into the other side's logprobs, if there
-- is one.
--
-- Within a kept set a token's logprob is (x - x_0) / tau - ln sum exp((x_i - x_0) / tau) over the
-- set, where x_0 is the largest logit. If the set holds the s largest logits, a value determines
-- the sum, and the sum determines s, or an interval of s. Each probed token thus votes for k = s,
-- and for the p that give s: those above the softmax's sum over s - 1 ids, up to the sum over s. An
-- unknown temperature is voted for first, while s is free. The winner is a hypothesis until all
-- tokens have been computed again with it (rows.lua), with the sets that `cut` makes.
--
-- A hypothesis has: `k` and `ties` (ids that are equal to the last of the k are kept, too); `p`,
-- applied to the ids that k leaves; `p_temperature`, if the nucleus is taken at another
-- temperature; `temperature`, unless it is the side's own.

local ffi = require "ffi"
local order = require "samebits.drift.order"
local temperature = require "samebits.drift.temperature"
local vote = require "samebits.drift.vote"

local M = {}

local exp, log, min, max = math.exp, math.log, math.min, math.max

local NONE = 0xff800000 -- -inf

-- The number of probed tokens that vote, and of those that vote for an unknown temperature; the
-- size up to which a set is small.
local VOTERS, WARM_VOTERS, SMALL = 24, 12, 128
local LARGE = { 150, 200, 250, 256, 300, 400, 500, 512, 1000, 1024, 2000, 2048, 4096, 5000 }

-- The voters that a temperature needs (two can agree by chance), and the number of hypotheses to
-- return.
local WARM, MANY = 3, 3

-- The error in nats of fp32's roundings, relative to the size of a value or a logit.
local ROUNDING = 2 ^ -22

-- cum[s] is the sum over the s largest of n falling logits at a temperature. The total is cum[n].
local cum, cum_room = nil, 0
local function accumulate(x, n, tau)
  if cum_room < n + 1 then cum, cum_room = ffi.new("double[?]", n + 1), n + 1 end
  local sum, x0 = 0, x[0]
  cum[0] = 0
  for s = 1, n do
    sum = sum + exp((x[s - 1] - x0) / tau)
    cum[s] = sum
  end
  return sum
end

-- The index of the first of cum[low .. n] that is at least `sum`; n + 1 if none is.
local function first_at_least(sum, low, n)
  local high = n + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cum[middle] >= sum then high = middle else low = middle + 1 end
  end
  return low
end

-- The first and the last of the logits that equal the s-th.
local function tied(x, n, s)
  local first, last = s, s
  while first > 1 and x[first - 2] == x[s - 1] do first = first - 1 end
  while last < n and x[last] == x[s - 1] do last = last + 1 end
  return first, last
end

-- The probes, with the data of their rows that voting needs. A value of 0 or more indicates only
-- the set of the target alone.
local function prepare(probes, copy, vocab)
  local able = {}
  for _, probe in ipairs(probes) do
    if probe.value < 0 and probe.value > -math.huge then able[#able + 1] = probe end
  end
  local row, out = ffi.new("float[?]", vocab), {}
  local count = min(#able, VOTERS)
  for i = 0, count - 1 do
    local probe = able[1 + math.floor(i * #able / count)]
    copy(probe.row, row)
    local x = ffi.new("float[?]", vocab)
    local n = order.falling(ffi.cast("const int32_t *", row), vocab, x)
    local target = row[probe.id]
    if n and n > 0 and target > -math.huge then
      local rank = 1
      while x[rank - 1] ~= target do rank = rank + 1 end
      out[#out + 1] = { row = probe.row, value = probe.value, x = x, n = n, target = target,
                        rank = rank }
    end
  end
  return out
end

-- The sizes of the sets that give a probe's value at a temperature; nil if no size does, or all do.
local function sizes(probe, tau, tolerance)
  local sum = exp((probe.target - probe.x[0]) / tau - probe.value)
  local total = accumulate(probe.x, probe.n, tau)
  if sum * exp(tolerance) >= total then return nil end
  local low = first_at_least(sum * exp(-tolerance), probe.rank, probe.n)
  local past = first_at_least(sum * exp(tolerance), low, probe.n)
  if past == low or past > probe.n then return nil end
  return { probe = probe, low = low, high = past - 1 }
end

-- Votes for k, with sets cut at k ids, or with all ids equal to the last.
local function votes_for_k(voters, ties)
  local votes = {}
  for i, v in ipairs(voters) do
    votes[i] = {}
    if ties then
      local x, n = v.probe.x, v.probe.n
      local first, last = tied(x, n, v.low)
      if last <= v.high then
        local start, high = tied(x, n, v.high)
        if high > v.high then high = start - 1 end
        votes[i][1] = { low = first, high = high }
      end
    else
      votes[i][1] = { low = v.low, high = v.high }
    end
  end
  return votes
end

-- The sums that a vote for p needs from a voter at a temperature: below and up to its sizes, and
-- over the first k logits.
local function sums(voter, tau)
  local n = voter.probe.n
  local total = accumulate(voter.probe.x, n, tau)
  local held = min(n, LARGE[#LARGE])
  local first = ffi.new("double[?]", held + 1)
  ffi.copy(first, cum, 8 * (held + 1))
  return { below = cum[voter.low - 1], up_to = cum[voter.high], total = total,
           over = function(k) return k >= n and total or first[k] end }
end

-- Votes for p, applied to the ids that k leaves if k is given.
local function votes_for_p(voters, list, k)
  local votes = {}
  for i, v in ipairs(voters) do
    local sum = list[i]
    votes[i] = {}
    if not k then
      votes[i][1] = { low = sum.below / sum.total, high = sum.up_to / sum.total }
    elseif v.low <= k then
      local total = sum.over(k)
      votes[i][1] = { low = sum.below / total, high = v.high >= k and 1 or sum.up_to / total }
    end
  end
  return votes
end

local function decimals(x)
  for digits = 0, 9 do
    if x * 10 ^ digits % 1 == 0 then return digits end
  end
  return 10
end

-- Ranks two values of k by which one a user is more likely to request.
local function evenness(k)
  for rank, step in ipairs { 1000, 100, 50, 10, 5, 2 } do
    if k % step == 0 then return -rank end
  end
  return -math.huge
end

-- The k and p that most voters allow, with few digits; nil if no voter allows any.
local function best_pair(voters, list)
  local best
  local function try(k)
    local found = vote.winner(votes_for_p(voters, list, k))
    if not found or #found.voters < 3 or found.low >= 1 or found.low >= found.high then return end
    found.k, found.p = k, vote.shortest(found.low, found.high)
    if found.p >= 1 then return end
    found.digits, found.k_low, found.k_high = decimals(found.p), k, k
    if not best or #found.voters > #best.voters or
       #found.voters == #best.voters and found.digits < best.digits then
      best = found
    elseif #found.voters == #best.voters and found.digits == best.digits then
      found.k_low = best.k_low
      best.k_high = k
      if evenness(k) > evenness(best.k) then best = found end
    end
  end
  for k = 2, SMALL do try(k) end
  for _, k in ipairs(LARGE) do try(k) end
  return best
end

local function enough(best) return best and #best.voters >= 2 end

-- How many numbers a hypothesis has.
local function terms(set)
  return (set.k and 1 or 0) + (set.p and 1 or 0) + (set.p_temperature or 0)
end

-- The hypotheses at a temperature (of rows).
local function at(probes, tau_of, tolerance_of)
  local voters, out = {}, {}
  for _, probe in ipairs(probes) do
    local tau = tau_of(probe.row)
    voters[#voters + 1] = sizes(probe, tau, tolerance_of(probe, tau))
  end
  local function put(best, set)
    set.voters = #best.voters
    out[#out + 1] = set
  end
  local by_k, ties = vote.winner(votes_for_k(voters, true)), true
  local cut = vote.winner(votes_for_k(voters, false))
  if cut and not (by_k and #by_k.voters >= #cut.voters) then by_k, ties = cut, false end
  if enough(by_k) then
    put(by_k, { k = vote.roundest(by_k.low, by_k.high), ties = ties, k_low = by_k.low,
                k_high = by_k.high })
  end
  local scaled = false
  for _, v in ipairs(voters) do scaled = scaled or tau_of(v.probe.row) ~= 1 end
  for _, one in ipairs(scaled and { false, 1 } or { false }) do
    local list = {}
    for i, v in ipairs(voters) do list[i] = sums(v, one or tau_of(v.probe.row)) end
    local by_p = vote.winner(votes_for_p(voters, list))
    if enough(by_p) then
      put(by_p, { p = vote.shortest(by_p.low, by_p.high), p_temperature = one or nil })
      local both = best_pair(voters, list)
      if both and #both.voters > max(#by_k.voters, #by_p.voters) then
        put(both, { k = both.k, p = both.p, p_temperature = one or nil, k_low = both.k_low,
                    k_high = both.k_high })
      end
    end
  end
  table.sort(out, function(x, y)
    if x.voters ~= y.voters then return x.voters > y.voters end
    if terms(x) ~= terms(y) then return terms(x) < terms(y) end
    return x.k ~= nil and y.k == nil
  end)
  return out
end

-- Temperatures at which sets of any sizes give the values.
local function warm(probes, tolerance)
  local votes = {}
  for i = 1, min(#probes, WARM_VOTERS) do
    local probe, list = probes[i], {}
    local x, x0, target = probe.x, probe.x[0], probe.target
    local function try(s)
      local function f(t)
        local beta, sum = exp(-t), 0
        for j = 0, s - 1 do sum = sum + exp((x[j] - x0) * beta) end
        return (target - x0) * beta - log(sum)
      end
      for _, interval in ipairs(temperature.intervals(f, probe.value, tolerance)) do
        list[#list + 1] = interval
      end
    end
    for s = max(2, probe.rank), min(SMALL, probe.n) do try(s) end
    for _, s in ipairs(LARGE) do if s >= probe.rank and s < probe.n then try(s) end end
    votes[i] = list
  end
  local found = {}
  while #found < 2 do
    local best = vote.winner(votes)
    if not best or #best.voters < WARM then break end
    found[#found + 1] = vote.shortest(best.low, best.high)
    for k = #best.voters, 1, -1 do table.remove(votes, best.voters[k]) end
  end
  return found
end

--- Returns the hypotheses for which tokens are evidence, most votes first.
-- @tparam table probes a list of { row, id, value }
-- @tparam function copy of a row and a float pointer: writes the row's logits there
-- @tparam number vocab the number of logits in a row
-- @tparam function own of a row: the temperature that the side was given with
-- @tparam table taus additional temperatures to try: numbers, and tensors with one per row
-- @tparam number near the tolerance, in nats, in addition to fp32's roundings
function M.fit(probes, copy, vocab, own, taus, near)
  probes = prepare(probes, copy, vocab)
  if #probes < 2 then return {} end
  local out = {}
  local function rounding(probe, tau)
    return ROUNDING * max(1, -probe.value, math.abs(probe.target / tau), math.abs(probe.x[0] / tau))
  end
  local function try(tau)
    local tau_of = own
    if type(tau) == "number" then
      tau_of = function() return tau end
    elseif tau then
      tau_of = function(row) return tau:get(row) end
    end
    local list = at(probes, tau_of, rounding)
    local loose = at(probes, tau_of, function(...) return max(near, rounding(...)) end)
    if loose[1] and (not list[1] or 4 * list[1].voters < 3 * loose[1].voters) then list = loose end
    for _, set in ipairs(list) do
      set.temperature = tau
      out[#out + 1] = set
    end
  end
  local function best()
    local voters = 0
    for _, set in ipairs(out) do voters = max(voters, set.voters) end
    return voters
  end
  try(nil)
  for _, tau in ipairs(taus) do try(tau) end
  -- A temperature next to one that was tried is the same one, moved by another op's rounding.
  local function tried(tau)
    local known = { own(probes[1].row), unpack(taus) }
    for _, other in ipairs(known) do
      if type(other) == "number" and math.abs(tau / other - 1) < 100 * near then return true end
    end
  end
  if 2 * best() < #probes then
    for _, tau in ipairs(warm(probes, max(near, ROUNDING))) do
      if not tried(tau) then try(tau) end
    end
  end
  local most = best()
  for i, set in ipairs(out) do set.place = i end
  table.sort(out, function(x, y)
    if x.voters ~= y.voters then return x.voters > y.voters end
    return x.place < y.place
  end)
  while #out > MANY or #out > 0 and 4 * out[#out].voters < most do out[#out] = nil end
  return out
end

local sorted, sorted_room = nil, 0

--- Makes the ids that a hypothesis leaves out absent (-inf) in a row of logits.
-- @tparam table set the hypothesis
-- @param row the logits, uint32_t *
-- @tparam number vocab the number of logits
-- @tparam number id the target
-- @tparam number tau the row's temperature
-- @tparam boolean kept whether the target is kept if it equals the last id of the set
-- @tparam number near nats
-- @treturn table `size` of the set; `tied`: whether it holds more than k ids, because the last ones
-- are equal; `sharp`: whether it is evidence for the hypothesis: it holds more than one id and not
-- all, and for p one id more or less changes the value by more than four times `near`; `low` and
-- `high`: any p above `low` and up to `high` gives this set. Returns nil, and leaves the row
-- unchanged, if logits are NaN or +inf.
function M.cut(set, row, vocab, id, tau, kept, near)
  if sorted_room < vocab then sorted, sorted_room = ffi.new("float[?]", vocab), vocab end
  local n = order.falling(ffi.cast("const int32_t *", row), vocab, sorted)
  if not n or n == 0 then return nil end
  local x, values = sorted, ffi.cast("const float *", row)
  local size, limit, out = n, n, { low = 0, high = 1, sharp = true }
  if set.k and set.k < n then
    limit = set.k
    if set.ties then
      local _, last = tied(x, n, limit)
      out.tied, limit = last > limit, last
    end
    size = limit
  end
  if set.p then
    accumulate(x, n, set.p_temperature or tau)
    local total = cum[limit]
    size = min(first_at_least(set.p * total, 1, limit), limit)
    out.low = cum[size - 1] / total
    if size < limit then
      out.high = cum[size] / total
      local gap = min(cum[size] / max(cum[size - 1], 1e-300), cum[size + 1] / cum[size])
      out.sharp = log(gap) > 4 * near
    end
  end
  out.size, out.sharp = size, out.sharp and size > 1 and size < n
  if size == n then return out end
  local last = x[size - 1]
  local first = tied(x, n, size)
  local ties = size - first + 1 -- how many of the logits equal to the last are kept
  if values[id] == last then ties = ties - (kept and 1 or 0) end
  for i = 0, vocab - 1 do
    local v = values[i]
    if v < last then
      row[i] = NONE
    elseif v == last and not (i == id and kept) then
      if i == id or ties <= 0 then row[i] = NONE else ties = ties - 1 end
    end
  end
  return out
end

local function number(x) return ("%.9g"):format(x) end

-- A bound of p with six decimals, rounded into the interval.
local function inward(x, up)
  return number((up and math.ceil or math.floor)(x * 1e6) / 1e6)
end

local function describe(set)
  local parts = {}
  if type(set.temperature) == "number" then
    parts[1] = ("at temperature %s, "):format(number(set.temperature))
  elseif set.temperature then
    parts[1] = "at the other side's temperatures, "
  end
  local k
  if set.k == 1 then
    k = "the largest logit alone (top-k 1)"
  elseif set.k then
    k = ("the %d largest logits (top-k%s)"):format(set.k, set.tied and
        "; those equal to the last are kept, too" or "")
  end
  if k and set.k_low ~= set.k_high then
    k = ("%s (some k from %d to %d)"):format(k, set.k_low, set.k_high)
  end
  if not set.p then
    parts[#parts + 1] = "within " .. k
    return table.concat(parts)
  end
  parts[#parts + 1] = ("within the nucleus of p = %s (top-p%s)%s"):format(number(set.p),
    set.p_temperature and (", taken at temperature %s"):format(number(set.p_temperature)) or "",
    k and " of " .. k or "")
  local low, high = inward(set.low, true), inward(set.high, false)
  if tonumber(low) < set.p and set.p < tonumber(high) then
    parts[#parts + 1] = ("; any p from %s to %s gives the same sets"):format(low, high)
  end
  return table.concat(parts)
end

--- Adds to a cause the values of its hypothesis: `top_k`, `top_p`, `top_p_low` and `top_p_high`
-- (any p above the first and up to the second gives the same sets at the tokens that it explains),
-- `top_k_low` and `top_k_high` (the probed tokens cannot distinguish values between them), and the
-- end of the `text`.
function M.tell(cause, set)
  set.low, set.high = set.all.low, set.all.high
  cause.top_k, cause.top_p, cause.p_temperature = set.k, set.p, set.p_temperature
  cause.top_k_low, cause.top_k_high = set.k_low, set.k_high
  if type(cause.temperature) ~= "number" then cause.temperature = nil end
  if set.p then cause.top_p_low, cause.top_p_high = set.low, set.high end
  cause.text = cause.text .. describe(set)
end

return M
