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

-- Bytes of a source as a string.
local function bytes_of(self, first, size) return ffi.string(self:at(first, size), size) end

-- Fails unless reading a path gives nil and this message behind it.
local function refuses(path, opts, f, words)
  assert.equal(path .. ": " .. words, refusal.message(source.read(path, opts, f, 0, 0)))
end

describe("a file that is read", function()
  it("gives the same bytes mapped and copied", function()
    local path = files:write("digits", "0123456789")
    for _, copy in ipairs { false, true } do
      assert.equal("3456", source.read(path, { copy = copy }, bytes_of, 3, 4))
      assert.equal(10, source.read(path, { copy = copy }, function(self) return self.size end))
      assert.equal("", source.read(files:write("empty", ""), { copy = copy }, bytes_of, 0, 0))
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
    refuses(files:path "none", {}, bytes_of, "No such file or directory")
    refuses(files.name, {}, bytes_of, "Is a directory")
    assert.equal("", (shell.run("mkfifo %s", files:path "pipe")))
    refuses(files:path "pipe", {}, bytes_of, "not a regular file")
    local path = files:write("bad", "x")
    local function refuse(self) refusing.raise("byte %d", self.size) end
    for _, copy in ipairs { false, true } do refuses(path, { copy = copy }, refuse, "byte 1") end
  end)

  it("is told of where it changed since", function()
    local opened, path = {}, files:write("kept", "0123456789")
    assert(source.read(path, { opened = opened }, bytes_of, 0, 10))
    assert.equal(1, #opened)
    assert.is_nil(source.changed(opened))
    local other = files:write("other", "0123456789")
    assert(os.rename(other, path))
    assert.equal(path .. ": changed while it was in use: another file has taken its place",
                 source.changed(opened))
    os.remove(path)
    assert.equal(path .. ": changed while it was in use: No such file or directory",
                 opened[1]:changed())
  end)

  it("is refused where it changes while it is copied", function()
    local path = files:write("short", "0123456789")
    local function cut(self)
      shell.run("truncate -s 4 %s", path)
      return bytes_of(self, 2, 6)
    end
    refuses(path, { copy = true }, cut, "changed while it was read: 4 bytes were 10")
    local function grow() return shell.run("printf 01234 >>%s", path) end
    refuses(path, { copy = true }, grow, "changed while it was read: 9 bytes were 4")
  end)
end)
