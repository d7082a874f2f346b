--- The verdict of a report in one word, and why in a sentence.
--
-- * equal: the bits of every token that counts are the same, and so are the inputs;
-- * explained: a setting or a value that was computed again gives every token that differs;
-- * localized: every token that differs has a cause, but some of these only say where it arises
--   (the logits, the op, the ids), not why;
-- * unexplained: tokens differ for which nothing that was tried holds;
-- * inconclusive: what would decide it is missing.
--
-- Missing evidence never passes: without tokens, without numbers or without any logits the verdict
-- is never a better one than the evidence that was there allows.

local words = require "samebits.drift.words"

local M = {}

--- The verdicts, the best one first.
M.WORDS = { "equal", "explained", "localized", "unexplained", "inconclusive" }

-- Causes that say where a difference arises, but not by which setting.
local PLACES = { id = true, target = true, lse = true, op = true, logits = true,
                 op_and_logits = true }

-- Inputs without which the tokens of both sides are not the same ones.
local WHICH = { ids = true, mask = true, cu_seqlens = true }

local count = words.count

-- "3 of the 5 tokens that differ".
local function share(part, whole)
  if whole == 1 then return "The token that differs" end
  return part == whole and ("All %s tokens that differ"):format(count(whole)) or
         ("%s of the %s tokens that differ"):format(count(part), count(whole))
end

local function plural(n) return n == 1 and "" or "s" end

-- The causes' names, the largest first, each once.
local function named(report, is_meant)
  local seen, out = {}, {}
  for _, cause in ipairs(report.causes) do
    local name = words.CAUSES[cause.cause]
    if not seen[name] and is_meant(cause.cause) then
      seen[name] = true
      out[#out + 1] = name
    end
  end
  return table.concat(out, ", ")
end

local function tokens_by(report, is_meant)
  local n, exactly = 0, 0
  for _, cause in ipairs(report.causes) do
    if is_meant(cause.cause) then
      n, exactly = n + cause.tokens, exactly + cause.tokens_exactly
    end
  end
  return n, exactly
end

local function is_place(cause) return PLACES[cause] == true end
local function is_reason(cause) return not PLACES[cause] end

local function different_tokens(report)
  if #report.inputs > 0 then
    for _, input in ipairs(report.inputs) do
      if WHICH[input.field] then return true end
    end
  end
  return report.tokens.only_a + report.tokens.only_b > 0
end

local function how(n, exactly)
  if exactly == n then return "bit for bit" end
  if exactly == 0 then return "nearly" end
  return ("%s bit for bit, the others nearly"):format(count(exactly))
end

--- Returns the word and the sentence. report: what report.lua makes, before it has a verdict.
function M.of(report)
  local tokens = report.tokens
  local n = tokens.different
  if tokens.compared == 0 then
    return "inconclusive", "No token counts on both sides, so nothing was compared."
  end
  if report.not_finite.nan_both == tokens.compared then
    return "inconclusive", "Every value is NaN on both sides; equal NaNs are no evidence."
  end
  if report.equal then
    return "equal", ("%s token%s that count%s %s the same bits on both sides."):format(
      count(tokens.compared), plural(tokens.compared), tokens.compared == 1 and "s" or "",
      tokens.compared == 1 and "has" or "have")
  end
  if report.unexplained > 0 then
    local has = report.a.logits or report.b.logits
    local explained = n - report.unexplained
    local head = explained > 0 and
      ("%s %s a cause (%s); %s %s none."):format(share(explained, n),
        explained == 1 and "has" or "have", named(report, function() return true end),
        count(report.unexplained), report.unexplained == 1 and "has" or "have") or
      ("Nothing that was tried explains %s."):format(
        n == 1 and "the token that differs" or ("the %s tokens that differ"):format(count(n)))
    if not has then
      return "inconclusive",
             head .. " Neither side's logits were given, so most causes could not be tried."
    end
    local one = not (report.a.logits and report.b.logits)
    return "unexplained", head .. (one and
      (" With %s's logits, too, the op can be told from the logits."):format(
        report.a.logits and "B" or "A") or "")
  end
  local places, at_places = tokens_by(report, is_place)
  local reasons, at_reasons = tokens_by(report, is_reason)
  if n == 0 then
    return "localized", ("No logprob differs, but %s."):format(#report.inputs > 0 and
      ("the %s do"):format(words.inputs(report)) or "some tokens count on one side only")
  end
  if places > 0 then
    local tail = reasons > 0 and (" The other %s: %s."):format(count(reasons),
                                                              named(report, is_reason)) or ""
    return "localized", ("%s trace%s to %s%s: that says where, not why.%s")
      :format(share(places, n), n == 1 and "s" or "", named(report, is_place),
              at_places < places and " (some nearly)" or "", tail)
  end
  if different_tokens(report) then
    return "localized", ("%s %s a cause (%s), but the sides do not count the same tokens.")
      :format(share(n, n), n == 1 and "has" or "have", named(report, is_reason))
  end
  return "explained", ("%s, %s: %s."):format(share(reasons, n),
    how(reasons, at_reasons), named(report, is_reason))
end

return M
