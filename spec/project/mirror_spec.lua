-- The specs mirror the sources: every module of the front end has a spec of the same name, and so
-- has every operation, whose files have the same name in every room.

local read = require("spec.support.files").read
local shell = require "spec.support.shell"

-- Generated; spec/api/header_spec.lua compares it with the header.
local EXEMPT = { ["lua/samebits/cdef.lua"] = true }

local function names_of(paths, suffix)
  local names = {}
  for path in paths:gmatch "[^\n]+" do
    local name = path:match("([^/]+)" .. suffix .. "$")
    if name then names[name] = path end
  end
  return names
end

local function files_in(folder)
  local list, status = shell.run("find %s -name '*.lua'", folder)
  assert.equal(0, status, list)
  return list
end

describe("the specs", function()
  it("have one for each module", function()
    local specs, missing, count = names_of(files_in "spec", "_spec%.lua"), {}, 0
    for path in files_in("lua/samebits"):gmatch "[^\n]+" do
      count = count + 1
      local name = path:match "([^/]+)%.lua$"
      if not specs[name] and not EXEMPT[path] then missing[#missing + 1] = path end
    end
    assert.is_true(count > 100)
    table.sort(missing)
    assert.same({}, missing)
  end)

  it("have one for each operation, whose files have its name in every room", function()
    local specs, count = names_of(files_in "spec", "_spec%.lua"), 0
    for name in pairs(names_of(files_in "lua/samebits/op", "%.lua")) do
      local sources = shell.run("ls src/api/%s.c src/cuda/%s.c kernels/%s.cu 2>/dev/null || true",
                                name, name, name)
      if sources:find "src/cuda" then
        count = count + 1
        assert.truthy(specs[name], name)
        assert.truthy(sources:find "src/api", name)
        assert.truthy(name == "exchange" or sources:find "kernels", name)
      end
    end
    assert.equal(11, count)
  end)

  -- "sb_kl", and so on.
  local function missing_from(path, names, form)
    local text, missing = read(path), {}
    for _, name in ipairs(names) do
      if not text:find(form:format(name), 1, true) then missing[#missing + 1] = name end
    end
    return missing
  end

  local function all_of(pattern)
    local names = {}
    for name in read("src/samebits.h"):gmatch(pattern) do names[#names + 1] = name end
    return names
  end

  it("make each call on a context from C, and refuse all that it requests", function()
    local calls = all_of "SB_API sb_status (sb_[%w_]+)%(sb_context %*ctx"
    assert.is_true(#calls > 20)
    assert.same({}, missing_from("spec/c/each_call.h", calls, "X(%s,"))
    assert.same({}, missing_from("spec/faults/main.c", calls, "%s("))
  end)

  it("hold each struct to its size", function()
    local structs = all_of "typedef struct (sb_[%w_]+) {"
    assert.is_true(#structs > 12)
    assert.same({}, missing_from("spec/c/abi.c", structs, "sizeof(%s) =="))
  end)
end)
