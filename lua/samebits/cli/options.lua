--- Options that several commands share, and the batch that files and options make.

local fields = require "samebits.io.fields"
local formats = require "samebits.io.formats"
local lib = require "samebits.lib"
local tell = require "samebits.cli.tell"

local M = {}

M.FILES = [[
FILE is a .npy file or a .safetensors file. All that a .safetensors file holds
is used where its name tells what it is: logits, ids (or responses, ...), mask
(or response_mask, ...), cu_seqlens, temperature, kept (or kept_ids and
kept_offsets), rows, and in place of logits hidden and head, hidden states
[B, T, D] or [N, D] and weights [V, D]; docs/drift.md has all names. FILE:NAME
is one tensor of it, along with the file's ids, mask and cu_seqlens. A path
that exists as it stands wins over a name after a colon. What an option names
wins. The output tells what was used, and what was not.]]

--- Converters for argparse: of integers, and of any numbers, within low and high.
function M.integer(low, high)
  return function(text)
    local n = tonumber(text)
    if n and n % 1 == 0 and n >= low and n <= high then return n end
    return nil, ("'%s' is not an integer from %.0f to %.0f"):format(text, low, high)
  end
end

function M.number(low, high)
  return function(text)
    local n = tonumber(text)
    if n and n >= low and n <= high then return n end
    return nil, ("'%s' is not a number from %g to %g"):format(text, low, high)
  end
end

-- Ids are 64-bit; a Lua number holds them up to 2^53.
local WIDEST = 2 ^ 53

--- Adds the options that make a batch from files.
function M.add_batch(command)
  local function tensor(option, text) command:option(option, text):argname "FILE[:NAME]" end
  tensor("--ids", "Target ids, [B, T] or [N].")
  tensor("--mask", "The same shape, non-zero where a token counts.")
  tensor("--cu-seqlens", "[B + 1]: where the sequences of [N, V] start and end.")
  tensor("--kept", "Which ids take part, one row per token: flags [.., V], or int32 words.")
  tensor("--kept-ids", "The same as lists: all kept ids, one token's after the other's.")
  tensor("--kept-offsets", "Where each token's kept ids begin, and their number.")
  command:option("--ignore-index", "The id of tokens not to score.",
                 tostring(lib.constants.SB_IGNORE_INDEX), M.integer(-WIDEST, WIDEST)):argname "N"
  command:option("--temperature",
                 "A number, or FILE[:NAME] with one per row or one per sequence. (default: 1)")
    :argname "T"
  command:flag("--shift", "Logits of row t score id t + 1 of the same sequence.")
  command:option("--format", "The format of a head: h24w16 or h24w24.", "h24w16", function(text)
    if text == "h24w16" or text == "h24w24" then return text end
    return nil, ("'%s' is neither h24w16 nor h24w24"):format(text)
  end):argname "NAME"
end

--- Adds the options that say how the cpu computes.
function M.add_cpu(command)
  command:option("--threads", "cpu: threads to work with.", nil, M.integer(1, 1024)):argname "N"
  command:option("--isa", "cpu: scalar, avx2 or avx512."):argname "NAME"
end

--- Returns the temperature that an option gives: a number, or FILE[:NAME]; nil if the option is
-- missing.
function M.temperature(option, text)
  if text == nil or tonumber(text) then return tonumber(text) end
  if formats.exists((formats.split_spec(text))) then return text end
  tell.fail("%s: '%s' is no number, and no file has that name", option, text)
end

--- Reads the files that a command line names. Returns the table of a batch, and the gathered fields
-- (see samebits.io.fields). files: a list of FILE[:NAME].
function M.batch(args, files)
  local named = { logits = args.logits, ids = args.ids, mask = args.mask,
                  cu_seqlens = args.cu_seqlens, kept = args.kept, kept_ids = args.kept_ids,
                  kept_offsets = args.kept_offsets }
  local temperature = M.temperature("--temperature", args.temperature)
  named.temperature = type(temperature) == "number" or temperature

  local gathered = tell.try(fields.gather, files, named)
  local spec = { ignore_index = args.ignore_index, shift = args.shift }
  for role, t in pairs(gathered.fields) do spec[role] = t end
  if type(temperature) == "number" then spec.temperature = temperature end
  if spec.head then spec.format = args.format end
  if not spec.logits and not spec.head then
    tell.fail("no logits, float32, float16 or bfloat16 [B, T, V] or [N, V], in %s",
              table.concat(files, " and "))
  end
  return spec, gathered
end

--- Ends the command if a gathered file has changed since it was opened, because results from before
-- and after the change do not belong together. Call it after everything is computed and before
-- anything is written.
function M.check_files(gathered)
  local why = gathered:changed()
  if why then tell.fail("%s", why) end
end

--- Returns the settings of a batch that do not come from a file: lines for `Gathered:lines`.
function M.settings(spec)
  local list = {}
  if type(spec.temperature) == "number" then
    list[#list + 1] = { "temperature", ("%.9g"):format(spec.temperature) }
  end
  if spec.ignore_index ~= lib.constants.SB_IGNORE_INDEX then
    list[#list + 1] = { "ignore_index", ("%.0f"):format(spec.ignore_index) }
  end
  if spec.format then list[#list + 1] = { "format", spec.format } end
  if spec.shift then list[#list + 1] = { "shift", "logits of row t score id t + 1" } end
  return list
end

return M
