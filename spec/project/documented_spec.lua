-- Every public name is documented, and every name in the documentation exists.

local api = dofile "tools/api.lua"
local read = require("spec.support.files").read
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local HEADERS = { "src/samebits.h", "src/samebits_conventional.h" }

local function files_like(pattern)
  local list = {}
  for path in (shell.run("ls " .. pattern)):gmatch "[^\n]+" do list[#list + 1] = path end
  return list
end

local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item.name or item] = true end
  return set
end

-- The names that the headers declare.
local function declared()
  local names = {}
  for _, header in ipairs(HEADERS) do
    for _, item in ipairs(api.header(header).items) do
      for _, name in ipairs(item.names) do names[#names + 1] = name end
    end
  end
  return names
end

describe("documented:", function()
  it("what public Lua modules return", function()
    local missing, count = {}, 0
    for _, module in ipairs(api.modules()) do
      assert.is_true(#api.head(module) > 1)
      for _, member in ipairs(api.members(module)) do
        count = count + 1
        if not member.doc then missing[#missing + 1] = module .. "." .. member.name end
      end
    end
    assert.same({}, missing)
    assert.is_true(count > 30)
  end)

  it("the methods of objects", function()
    local missing = {}
    for _, class in ipairs(api.CLASSES) do
      local methods = api.methods(class)
      assert.is_true(#methods > 0, class.name)
      for _, method in ipairs(methods) do
        if not method.doc then missing[#missing + 1] = class.name .. ":" .. method.name end
      end
    end
    assert.same({}, missing)
  end)

  it("functions, types, enumerators and macros of the headers", function()
    local missing, found = {}, set_of(declared())
    for _, header in ipairs(HEADERS) do
      for _, item in ipairs(api.header(header).items) do
        if not item.doc then missing[#missing + 1] = table.concat(item.names, " ") .. item.text end
      end
      -- The items hold whatever looks like a name of the API in the code.
      for name in read(header):gsub("/%*.-%*/", ""):gmatch "%f[%w_][sS][bB]_[%w_]+" do
        if not found[name] and name ~= "SB_API" then missing[#missing + 1] = name end
      end
    end
    assert.same({}, missing)
    assert.is_true(#declared() > 80)
  end)
end)

describe("what exists:", function()
  -- Texts that tell users of names: path and text.
  local function texts()
    local list = {}
    for _, path in ipairs(files_like "README.md CHANGELOG.md docs/*.md lua/samebits.lua") do
      list[#list + 1] = { path, read(path) }
    end
    for _, module in ipairs(api.modules()) do
      for _, member in ipairs(api.members(module)) do
        list[#list + 1] = { module .. "." .. member.name, table.concat(member.doc or {}, "\n") }
      end
    end
    for _, class in ipairs(api.CLASSES) do
      for _, method in ipairs(api.methods(class)) do
        list[#list + 1] = { class.name .. ":" .. method.name, table.concat(method.doc or {}, "\n") }
      end
    end
    return list
  end

  it("the Lua names that are told of", function()
    local known = set_of(api.members "samebits")
    -- A module may be told of by its name, and files have endings.
    for _, path in ipairs(files_like "-d lua/samebits/*") do
      known[path:match "/([%w_]+)[^/]*$"] = true -- a module or a room of modules
    end
    for _, ending in ipairs { "h", "so", "pc", "make", "lua", "html" } do known[ending] = true end
    local methods = {}
    for _, class in ipairs(api.CLASSES) do methods[class.name] = set_of(api.methods(class)) end
    local wrong, count = {}, 0
    local function check(path, what, exists)
      count = count + 1
      if not exists then wrong[#wrong + 1] = path .. ": " .. what end
    end
    for _, text in ipairs(texts()) do
      local path, words = text[1], text[2]
      for name in words:gmatch "%f[%w_]samebits%.([%l_][%w_]*)" do
        check(path, "samebits." .. name, known[name])
      end
      for name in words:gmatch "%f[%w_]ctx:([%l_]+)" do
        check(path, "ctx:" .. name, methods.Context[name])
      end
      for name in words:gmatch "%f[%w_]batch:([%l_]+)" do
        check(path, "batch:" .. name, methods.Batch[name])
      end
    end
    assert.same({}, wrong)
    assert.is_true(count > 40)
  end)

  it("the C names that are told of", function()
    local public, anywhere = set_of(declared()), {}
    for _, path in ipairs(files_like("src/*.[ch] src/*/*.[ch] kernels/* tools/* spec/c/* " ..
                                     "spec/*.lua spec/*/*.lua spec/*/*/*.lua spec/faults/* " ..
                                     "spec/fakes/* bench/*.py")) do
      for name in read(path):gmatch "%f[%w_][sS][bB]_[%w_]+" do anywhere[name] = true end
    end
    local wrong, count = {}, 0
    local function check(path, text, known)
      for name in text:gmatch "%f[%w_][sS][bB]_[%w_]+%*?" do
        count = count + 1
        -- "sb_cuda_*" tells of a family, "SB_" of the prefix.
        if not known[name] and not name:find "[%*_]$" then
          wrong[#wrong + 1] = path .. ": " .. name
        end
      end
    end
    for _, header in ipairs(HEADERS) do
      local page = api.header(header)
      check(header, page.head, setmetatable({ SB_API = true }, { __index = public }))
      for _, item in ipairs(page.items) do check(header, item.doc or "", public) end
    end
    for _, path in ipairs(files_like "README.md CHANGELOG.md CONTRIBUTING.md docs/*.md") do
      check(path, read(path), setmetatable({}, { __index = function(_, name)
        return public[name] or anywhere[name]
      end }))
    end
    assert.same({}, wrong)
    assert.is_true(count > 150)
  end)

  it("the files that the texts link to", function()
    local wrong, count = {}, 0
    for _, path in ipairs(files_like("README.md CHANGELOG.md CONTRIBUTING.md docs/*.md " ..
                                     "spec/vectors/*.md")) do
      local folder = path:match "^(.*/)" or ""
      for target in read(path):gmatch "%]%(([^%s)#]+)[^)]*%)" do
        if not target:find "^%a+:" then
          count = count + 1
          local file = io.open(folder .. target, "rb")
          if file then file:close() else wrong[#wrong + 1] = path .. ": " .. target end
        end
      end
    end
    assert.same({}, wrong)
    assert.is_true(count > 10)
  end)
end)

describe("tools/docs", function()
  it("makes pages that hold every name", function()
    if not shell.has "ldoc" then return pending "ldoc is not installed" end
    local files = temporary.folder()
    finally(function() files:remove() end)
    -- A checkout for the tool to write into.
    shell.run("for f in build lua src; do ln -s \"$PWD\"/$f %s; done; cp -r tools %s",
              files.name, files.name)
    local said, status = shell.run("%s", files:path "tools/docs")
    assert.equal(0, status, said)
    local page = read(files:path "docs/api/samebits.h.html")
    for _, name in ipairs(declared()) do assert.truthy(page:find(name, 1, true), name) end
    for target in page:gmatch 'href="#([^"]+)"' do
      assert.truthy(page:find(('id="%s"'):format(target), 1, true), target)
    end
    page = read(files:path "docs/api/modules/samebits.html")
    for _, member in ipairs(api.members "samebits") do
      assert.truthy(page:find(('name = "%s"'):format(member.name), 1, true), member.name)
    end
    for _, class in ipairs(api.CLASSES) do
      for _, method in ipairs(api.methods(class)) do
        local name = ('name = "%s:%s"'):format(class.name, method.name)
        assert.truthy(page:find(name, 1, true), name)
      end
    end
    assert.truthy(read(files:path "docs/api/index.html"):find("samebits.h.html", 1, true))
  end)
end)
