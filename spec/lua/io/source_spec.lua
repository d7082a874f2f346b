-- The files that tensors are read from: mapped or copied, what is refused, and what is told of
-- files that change.

local ffi = require "ffi"
local samebits = require "samebits"
local source = require "samebits.io.source"
local refusing = require "samebits.io.refusal"
local refusal = require "spec.support.refusal"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

-- Bytes of a source as a string, and what keeps them.
local function bytes_of(self, first, size)
  local ptr, owner = self:at(first, size)
  return ffi.string(ptr, size), owner
end

-- The path with a message for it.
local function message(path, words) return path .. ": " .. words end

describe("a file that is read", function()
  it("gives the same bytes mapped and copied", function()
    local path = files:write("digits", "0123456789")
    for _, copy in ipairs { false, true } do
      assert.equal("3456", (source.read(path, { copy = copy }, bytes_of, 3, 4)))
      assert.equal(10, source.read(path, { copy = copy }, function(self) return self.size end))
      assert.equal("", (source.read(files:write("empty", ""), { copy = copy }, bytes_of, 0, 0)))
    end
  end)

  it("holds the tensors whose elements are its pages", function()
    local path = files:write("digits", ("0123456789"):rep(2))
    local function holds(self)
      local ptr, owner = self:at(4, 8)
      local t = samebits.tensor(ptr, { dtype = "uint8", shape = { 8 }, owner = owner })
      return { self:holds(t), self:holds(t:slice(0, 7, 8)), self:holds(t:clone()) }
    end
    assert.same({ true, true, false }, source.read(path, {}, holds))
    assert.same({ false, false, false }, source.read(path, { copy = true }, holds))
  end)

  it("is refused where it cannot be had, or where its reader refuses it", function()
    assert.equal("the path is empty", refusal.message(source.read("", {}, bytes_of, 0, 0)))
    local none = files:path "none"
    assert.equal(message(none, "No such file or directory"),
                 refusal.message(source.read(none, {}, bytes_of, 0, 0)))
    assert.equal(message(files.name, "Is a directory"),
                 refusal.message(source.read(files.name, {}, bytes_of, 0, 0)))
    local pipe = files:path "pipe"
    assert.equal("", (shell.run("mkfifo %s", pipe)))
    assert.equal(message(pipe, "not a regular file"),
                 refusal.message(source.read(pipe, {}, bytes_of, 0, 0)))
    local path = files:write("bad", "x")
    local function refuse(self) refusing.raise("byte %d", self.size) end
    for _, copy in ipairs { false, true } do
      assert.equal(message(path, "byte 1"),
                   refusal.message(source.read(path, { copy = copy }, refuse)))
    end
  end)

  it("is told of where it changed since", function()
    local opened, path = {}, files:write("kept", "0123456789")
    assert(source.read(path, { opened = opened }, bytes_of, 0, 10))
    assert.equal(1, #opened)
    assert.is_nil(source.changed(opened))
    local other = files:write("other", "0123456789")
    assert(os.rename(other, path))
    assert.equal(message(path, "changed while it was in use: another file has taken its place"),
                 source.changed(opened))
    os.remove(path)
    assert.equal(message(path, "changed while it was in use: No such file or directory"),
                 opened[1]:changed())
  end)

  it("is refused where it changes while it is copied", function()
    local path = files:write("short", "0123456789")
    local function cut(self)
      shell.run("truncate -s 4 %s", path)
      return bytes_of(self, 2, 6)
    end
    assert.equal(message(path, "changed while it was read: 4 bytes were 10"),
                 refusal.message(source.read(path, { copy = true }, cut)))
    local function grow()
      shell.run("printf 01234 >>%s", path)
      return true
    end
    assert.equal(message(path, "changed while it was read: 9 bytes were 4"),
                 refusal.message(source.read(path, { copy = true }, grow)))
  end)

  it("takes one option, a boolean", function()
    local function refused(opts)
      local ok, err = pcall(source.options, "load", opts)
      assert.is_false(ok)
      return tostring(err)
    end
    assert.same({}, source.options "load")
    assert.same({ copy = true }, source.options("load", { copy = true }))
    assert.equal("load: options are number, not a table", refused(1))
    assert.equal("load: unknown option 'x'", refused { x = true })
    assert.equal("load: copy: expected a boolean, got number", refused { copy = 1 })
  end)
end)
