--- The roles of the tensors in a file. This module alone decides them, for every command, for
-- batches made from the results of `load`, and for drift.
--
-- A role (logits, ids, mask, ...) is known by the names that tensors have. The rule:
--
-- * A file that is given whole provides every tensor in it that has a role.
-- * If one tensor of it is requested, by FILE:NAME or by an option such as `--ids FILE`, the file
--   also provides the tensors that say which tokens that tensor is about (ids, mask, cu_seqlens).
--   It does not provide the tensors that say how it was scored (temperature, kept sets).
-- * Tensors named by an option have priority, then those of files given whole, then those provided
--   along with a requested tensor. Two tensors for one role are an error unless this order decides
--   between them.
--
-- A tensor of an unsupported dtype follows the same rule. It is an error only if the rule chooses
-- it.
--
-- The result lists the tensors that were taken, with their sources, and those that were left;
-- callers print it.

local formats = require "samebits.io.formats"
local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"
local refusal = require "samebits.io.refusal"
local safetensors = require "samebits.io.safetensors"
local sources = require "samebits.io.source"
local tensor = require "samebits.tensor"

local layout = tensor.layout

local M = {}

-- Our own name first, then the names that trainers and rollout engines write.
local NAMES = {
  logprobs = { "logprobs", "token", "logprob", "log_probs", "token_logprobs", "old_log_probs",
               "rollout_log_probs", "per_token_logps", "old_per_token_logps" },
  logits = { "logits" },
  ids = { "ids", "token_ids", "responses", "response_ids", "completion_ids" },
  mask = { "mask", "response_mask", "completion_mask", "loss_mask" },
  cu_seqlens = { "cu_seqlens" },
  temperature = { "temperature" },
  kept = { "kept" },
  kept_ids = { "kept_ids", "sampling_mask.token_ids", "sampling_mask_token_ids" },
  kept_offsets = { "kept_offsets", "sampling_mask.offsets", "sampling_mask_offsets" },
  rows = { "rows" },
  hidden = { "hidden", "hidden_states" },
  head = { "head", "lm_head", "lm_head.weight" },
}

local ROLE_OF = {}
for role, names in pairs(NAMES) do
  for _, name in ipairs(names) do ROLE_OF[name] = role end
end

--- The roles of a batch, in the order in which they are reported.
M.BATCH = { "logits", "ids", "mask", "cu_seqlens", "temperature", "kept", "kept_ids",
            "kept_offsets", "rows", "hidden", "head" }

--- The roles of a side of a drift.
M.SIDE = { "logprobs", "logits", "ids", "mask", "cu_seqlens", "temperature", "kept", "kept_ids",
           "kept_offsets", "hidden", "head" }

-- The roles that say which tokens a tensor is about.
local BESIDE = { "ids", "mask", "cu_seqlens" }

local FLOATS = { float32 = true, float16 = true, bfloat16 = true, float64 = true }

-- Whether a tensor whose name tells nothing can have a role.
local function fits(role, t)
  local is_float = FLOATS[t.dtype] == true
  local wants_float = role == "logits" or role == "logprobs" or role == "temperature" or
                      role == "hidden" or role == "head"
  return is_float == wants_float
end

local function is_known(role, roles)
  for _, other in ipairs(roles) do
    if other == role then return true end
  end
  return false
end

--- Whether a name stands for one of the given roles.
function M.is_named(name, roles) return is_known(ROLE_OF[name], roles) end

--- Whether a value is one that a file may hold: a tensor, or the stand-in for a tensor of an
-- unsupported dtype.
function M.is_held(value) return tensor.is_tensor(value) or tensor.unsupported.why(value) ~= nil end

--- Returns the entries of a table of tensors by role, for the listed roles; and the names they have
-- there. Two names of one role raise misuse.
-- @tparam table from tensors by name
-- @tparam string where the table's name in messages
-- @tparam table roles a list
function M.by_role(from, where, roles)
  local found, called = {}, {}
  for _, role in ipairs(roles) do
    for _, name in ipairs(NAMES[role]) do
      local value = rawget(from, name)
      if value ~= nil then
        if found[role] ~= nil then
          misuse.raise("%s holds both %s and %s: say which are the %s", where, called[role], name,
                       role)
        end
        found[role], called[role] = value, name
      end
    end
  end
  return found, called
end

-- The names in a table of tensors, sorted.
local function names_of(tensors)
  local names = {}
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Returns a message with the roles that a file lacks and its names: "a.safetensors: no ids in it;
-- it holds 'x'".
function M.lacking(path, what, tensors)
  local names = names_of(tensors)
  return ("%s: %s in it; it holds %s"):format(path, what,
                                              #names > 0 and refusal.list(names) or "no tensor")
end

-- The only tensor of a file if its name tells nothing, and that name.
local function lone(tensors)
  local name = next(tensors)
  if name == nil or next(tensors, name) ~= nil or ROLE_OF[name] then return nil end
  return tensors[name], name
end

-- The roles that are not in a set.
local function without(roles, set)
  local out = {}
  for _, role in ipairs(roles) do
    if set[role] == nil then out[#out + 1] = role end
  end
  return out
end

-- The requested tensor of a file; nil and a message if it cannot be used.
local function usable(t, path)
  local why = tensor.unsupported.why(t)
  if why then return nil, ("%s: %s"):format(path, why) end
  return t
end

-- The roles, among the given ones, that a file provides along with a requested tensor.
local function beside(roles, but)
  local out = {}
  for _, role in ipairs(BESIDE) do
    if role ~= but and is_known(role, roles) then out[#out + 1] = role end
  end
  return out
end

--- Reads FILE or FILE:NAME.
-- @tparam string spec
-- @tparam table roles the roles that the file may provide
-- @tparam[opt] table opened a list that the file is added to (see source.lua)
-- @treturn table `path`; `fields` and `names`: tensors, and their names in the file, by role;
-- `bare` and `bare_name`: the requested tensor if no name tells its role; `named`: whether there
-- was a NAME; `tensors`: all that the file holds, nil for a .npy file; or nil and a message
function M.read(spec, roles, opened)
  local path, name = formats.split_spec(spec)
  local loaded, why = formats.load_named(path, nil, opened)
  if not loaded then return nil, why end
  local source = { path = path, fields = {}, names = {}, named = name ~= nil }
  if tensor.is_tensor(loaded) then
    if name then return formats.load_named(path, name) end -- its message says why not
    source.bare = loaded
    return source
  end
  source.tensors = loaded
  if name then
    source.bare = rawget(loaded, name)
    if not source.bare then return formats.load_named(path, name) end -- its message says why not
    source.bare_name = name
    source.fields, source.names = M.by_role(loaded, path, beside(roles, ROLE_OF[name]))
  else
    source.fields, source.names = M.by_role(loaded, path, roles)
    if next(source.fields) == nil then source.bare, source.bare_name = lone(loaded) end
  end
  if source.bare then
    local ok
    ok, why = usable(source.bare, path)
    if not ok then return nil, why end
  end
  return source
end

-- FILE or FILE:NAME as a tensor of a role, its name in the file, and the file as `read` returns it.
local function read_one(spec, role, opened)
  local source, why = M.read(spec, { role }, opened)
  if not source then return nil, why end
  local t, is_npy = source.bare, source.tensors == nil
  if t and (is_npy or source.named or fits(role, t)) then return t, source.bare_name, source end
  t, why = usable(source.fields[role], source.path)
  if t then return t, source.names[role], source end
  if why then return nil, why end
  why = M.lacking(source.path, "no " .. role, source.tensors)
  if next(source.tensors) == nil then return nil, why end
  return nil, ("%s: say which is meant, as %s:NAME"):format(why, source.path)
end

--- Returns the tensors that a file provides along with a requested one: tensors, and their names,
-- by role.
-- @tparam table source the result of `read` for the file
-- @tparam table held the fields that are not missing, by role
-- @tparam[opt] table roles a list: ids, mask and cu_seqlens by default
function M.along(source, held, roles)
  if not source.tensors then return {}, {} end
  return M.by_role(source.tensors, source.path, without(roles or BESIDE, held))
end

--- Loads one tensor for a role from FILE or FILE:NAME. Without a NAME, a .safetensors file must
-- hold a tensor with one of the role's names, or a single tensor whose name tells nothing and whose
-- dtype can be the role's. `opened` as for `read`.
-- @return a tensor, and the result of `read` for the file; or nil and a message
function M.load_one(spec, role, opened)
  local t, name, source = read_one(spec, role, opened)
  if not t then return nil, name end -- the message
  return t, source
end

-- Drops hidden states and a head unless both are there and logits are not: logits have priority.
-- called: what is known of each role besides.
local function screen(fields, called)
  if fields.logits == nil and fields.hidden ~= nil and fields.head ~= nil then return end
  for _, role in ipairs { "hidden", "head" } do fields[role], called[role] = nil, nil end
end

-- Gathering ---------------------------------------------------------------------------------------

local Gathered = {}
Gathered.__index = Gathered

local function place(path, name) return name and path .. ":" .. name or path end

local function option(role) return "--" .. role:gsub("_", "-") end

local function take(self, role, t, path, name)
  local ok, why = usable(t, path)
  if not ok then misuse.raise("%s", why) end
  self.fields[role] = t
  self.from[role] = { path = path, name = name }
end

-- The role of a tensor that a file was given for: the role of its name; otherwise floats are
-- logits, and other dtypes are ids.
local function bare_role(source)
  local t, role = source.bare, ROLE_OF[source.bare_name]
  if role and not is_known(role, M.BATCH) then
    misuse.raise("%s: by their name these are %s: expected logits, ids, ...",
                 place(source.path, source.bare_name), role)
  end
  return role or (fits("logits", t) and "logits" or "ids")
end

-- Takes all tensors that a file provides. FILE:NAME provides only that tensor here; the tensors
-- that it provides along with it are taken later.
local function take_file(self, spec, named)
  local source, why = M.read(spec, without(M.BATCH, named), self.opened)
  if not source then return nil, why end
  self.sources[#self.sources + 1] = source
  local function add(role, t, name)
    if named[role] then return end
    local other = self.from[role]
    if other and (other.path ~= source.path or other.name ~= name) then
      if not (other.name and name) then
        misuse.raise("%s and %s would both be the %s: say what they are by options (--ids, " ..
                     "--mask, ...)", place(other.path, other.name), place(source.path, name), role)
      end
      misuse.raise("%s and %s are both %s: name the one that is meant by %s",
                   place(other.path, other.name), place(source.path, name), role, option(role))
    end
    take(self, role, t, source.path, name)
  end
  if source.bare then
    add(bare_role(source), source.bare, source.bare_name)
  else
    for role, t in pairs(source.fields) do add(role, t, source.names[role]) end
  end
  return true
end

-- Takes a tensor that an option names. The option also gives the logits' file whole, unless it has
-- a NAME.
local function take_named(self, spec, role)
  local t, name, source = read_one(spec, role, self.opened)
  if not t then return nil, ("%s: %s"):format(option(role), name) end
  take(self, role, t, source.path, name)
  source.is_whole = role == "logits" and not source.named
  self.sources[#self.sources + 1] = source
  return true
end

-- Takes the tensors that files provide along with the requested ones.
local function take_along(self, named)
  for _, source in ipairs(self.sources) do
    local held = {}
    for _, set in ipairs { self.fields, named } do
      for role in pairs(set) do held[role] = true end
    end
    local fields, names = M.along(source, held, source.is_whole and M.BATCH)
    for role, t in pairs(fields) do take(self, role, t, source.path, names[role]) end
  end
end

-- The names in each file that were not taken: a list of { path, names }.
local function unused_of(self)
  local taken, seen, list = {}, {}, {}
  for _, from in pairs(self.from) do taken[place(from.path, from.name)] = true end
  for _, source in ipairs(self.sources) do
    local left = { path = source.path }
    local names = not seen[source.path] and source.tensors and names_of(source.tensors)
    for _, name in ipairs(names or {}) do
      if not taken[place(source.path, name)] then left[#left + 1] = name end
    end
    seen[source.path] = true
    if #left > 0 then list[#list + 1] = left end
  end
  return list
end

--- Gathers from files the fields that a batch is made of.
-- @tparam table files a list of FILE[:NAME]. A tensor whose name tells nothing is the logits if it
-- holds floats, otherwise the ids.
-- @tparam table named the tensors that options name: FILE[:NAME] by role; `true` for a role that is
-- known from elsewhere, so that no file's tensor is taken for it
-- @treturn table `fields`: tensors by role; `from`: { path, name } by role; `unused`: a list of
-- lists of names, with a `path`; `opened`: the files (see source.lua); or nil and a message
function M.gather(files, named)
  local self = setmetatable({ fields = {}, from = {}, sources = {}, opened = {} }, Gathered)
  for _, spec in ipairs(files) do
    local ok, why = take_file(self, spec, named)
    if not ok then return nil, why end
  end
  for _, role in ipairs(M.BATCH) do
    if type(named[role]) == "string" then
      local ok, why = take_named(self, named[role], role)
      if not ok then return nil, why end
    end
  end
  take_along(self, named)
  screen(self.fields, self.from)
  self.unused = unused_of(self)
  self.sources = nil
  return self
end

--- Returns why the files no longer hold the data that was read, in words; nil if they still do.
function Gathered:changed() return sources.changed(self.opened) end

local MANY = 8 -- how many names of unused tensors are listed

--- Returns a list of lines on the tensors that were taken, with their sources, and those that were
-- not. settings: a list of { name, text } for fields known from elsewhere.
function Gathered:lines(settings)
  local rows, wide, wider = {}, 0, 0
  local function add(name, text, from)
    rows[#rows + 1] = { name, text, from }
    wide = math.max(wide, #name)
    if from then wider = math.max(wider, #text) end
  end
  for _, role in ipairs(M.BATCH) do
    local t, from = self.fields[role], self.from[role]
    if t then
      add(role, ("%s %s"):format(t.dtype, layout.text(t.shape)),
          printable.text(place(from.path, from.name)))
    end
  end
  for _, setting in ipairs(settings or {}) do add(setting[1], setting[2]) end
  for _, left in ipairs(self.unused) do
    local shown = {}
    for i = 1, math.min(#left, MANY) do shown[i] = left[i] end
    if #left > MANY then shown[MANY + 1] = ("... (%d more)"):format(#left - MANY) end
    add("not used", printable.text(("%s: %s"):format(left.path, table.concat(shown, ", "))))
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local text = row[3] and ("%-" .. wider .. "s  %s"):format(row[2], row[3]) or row[2]
    lines[i] = ("%-" .. wide .. "s  %s"):format(row[1], text)
  end
  return lines
end

--- Returns the same for programs: FILE or FILE:NAME by role, and a list of the unused tensors.
function Gathered:places()
  local used, unused = {}, setmetatable({}, { __jsontype = "array" })
  for role, from in pairs(self.from) do used[role] = place(from.path, from.name) end
  for _, left in ipairs(self.unused) do
    for _, name in ipairs(left) do unused[#unused + 1] = place(left.path, name) end
  end
  return used, unused
end

-- Batches -----------------------------------------------------------------------------------------

--- Returns a batch's table. For the result of `load` for a .safetensors file: its tensors by role,
-- and everything else that was put into it (a number as the temperature, `shift`); also the names
-- of the tensors that are not used. Any other table is returned unchanged, since there a wrong name
-- is a mistake.
function M.for_batch(spec)
  if not safetensors.is_loaded(spec) then return spec, {} end
  local made, called = M.by_role(spec, "batch: the file", M.BATCH)
  screen(made, called)
  local unused = {}
  for key, value in pairs(spec) do
    local role = ROLE_OF[key]
    if M.is_held(value) then
      if called[role] ~= key then unused[#unused + 1] = key end
    elseif role == nil then
      made[key] = value
    end
  end
  table.sort(unused)
  return made, unused
end

return M
