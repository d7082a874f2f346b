-- samebits.load and samebits.save: which format a path means, and the rest of the module's surface.

local fields = require "samebits.io.fields"
local samebits = require "samebits"
local posix = require "samebits.io.posix"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files

setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

local function path(name) return files:path(name) end

local function write(name, bytes)
  local file = assert(io.open(path(name), "wb"))
  assert(file:write(bytes))
  file:close()
end

local function move(from, to) assert(os.rename(path(from), path(to))) end

-- The message of the error that f raises, at the line of its caller: this file.
local function refusal(f)
  local ok, message = pcall(f)
  assert.is_false(ok, "expected an error")
  local rest = message:match "formats_spec%.lua:%d+: (.*)"
  assert.is_truthy(rest, "the error is not at its caller's line: " .. tostring(message))
  return rest
end

describe("load and save", function()
  local t = samebits.tensor { { 1, 2 }, { 3, 4 } }

  it("choose the format by the ending, and by what a file begins with", function()
    assert.is_true(samebits.save(path "t.npy", t))
    assert.is_true(samebits.save(path "t.safetensors", { t = t }, { note = "metadata" }))
    move("t.npy", "npy.bin")
    move("t.safetensors", "st.bin")
    assert(samebits.same_bits(t, samebits.load(path "npy.bin")))
    local data, metadata = samebits.load(path "st.bin")
    assert(samebits.same_bits(t, data.t))
    assert.equal("metadata", metadata.note)
    assert(samebits.same_bits(t, samebits.load(path "st.bin", "t")))
  end)

  it("give nil and a message for files that cannot be had", function()
    local function why(...)
      local loaded, message = samebits.load(...)
      assert.is_nil(loaded)
      return message
    end
    assert.matches("none.npy: No such file", why(path "none.npy"))
    assert.matches("none: No such file", why(path "none"))
    assert.is_string(why(files.name))
    assert(samebits.save(path "t.safetensors", { a = t, metadata = t }))
    assert.matches("no tensor called 'b'; it holds 'a', 'metadata'", why(path "t.safetensors", "b"))
    assert(samebits.save(path "t.safetensors", { a = t }))
    assert.matches("no tensor called 'metadata'", why(path "t.safetensors", "metadata"))
    assert(samebits.save(path "t.npy", t))
    assert.matches("holds one tensor", why(path "t.npy", "b"))
    for name, bytes in pairs { empty = "", short = "\1\2", text = "hello, world" } do
      local file = assert(io.open(path(name), "wb"))
      file:write(bytes)
      file:close()
      assert.matches("neither .npy nor .safetensors", why(path(name)))
      assert(os.rename(path(name), path(name .. ".npy")))
      assert.matches(name .. ".npy: ", why(path(name .. ".npy")))
      assert(os.rename(path(name .. ".npy"), path(name .. ".safetensors")))
      assert.matches(name .. ".safetensors: ", why(path(name .. ".safetensors")))
    end
    local zip = "PK\3\4" .. ("\0"):rep(22)
    local foreign = {
      ["a.npz"] = { zip .. "\9\0\0\0arr_0.npy", "a %.npz archive of %.npy files" },
      ["a.pt"] = { zip .. "\16\0\0\0archive/data.pkl", "a PyTorch file" },
      ["b.pt"] = { "\128\2c__torch__", "a PyTorch file" },
      ["a.pkl"] = { "\128\4\149", "a pickle" },
      ["a.gguf"] = { "GGUF\3\0\0\0", "a GGUF file" },
      ["a.zip"] = { "PK\5\6", "but a zip archive$" },
    }
    for name, case in pairs(foreign) do
      local file = assert(io.open(path(name), "wb"))
      file:write(case[1])
      file:close()
      assert.matches(name .. ": neither %.npy nor %.safetensors, but ", why(path(name)))
      assert.matches(case[2], why(path(name)))
    end
    local saved, message = samebits.save(path "none/t.npy", t)
    assert.is_nil(saved)
    assert.matches("No such file", message)
  end)

  it("find the one tensor that is named among others", function()
    assert(samebits.save(path "t.safetensors", { a = t, b = t:view(4) }))
    assert(samebits.same_bits(t:view(4), samebits.load(path "t.safetensors", "b")))
    local many = {}
    for i = 1, 30 do many[("n%02d"):format(i)] = t end
    assert(samebits.save(path "many.safetensors", many))
    local _, why = samebits.load(path "many.safetensors", "b")
    assert.matches("no tensor called 'b'; it holds 'n01', 'n02', .*, 'n20' and 10 more$", why)
  end)

  it("complain of a dtype that is not supported where its tensor is asked for", function()
    local header = '{"ids":{"dtype":"U32","shape":[1],"data_offsets":[0,4]},"logits":' ..
                   '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    write("mixed.safetensors", string.char(#header) .. ("\0"):rep(7) .. header .. ("\0"):rep(8))
    assert.same({ 0 }, assert(samebits.load(path "mixed.safetensors", "logits")):totable())
    for _, call in ipairs {
      function() return samebits.load(path "mixed.safetensors", "ids") end,
      function() return fields.load_one(path "mixed.safetensors", "ids") end,
      function() return samebits.drift(path "mixed.safetensors", { -1 }) end,
    } do
      local loaded, why = call()
      assert.is_nil(loaded)
      assert.matches("tensor 'ids': dtype 'U32' is not supported", why)
    end
    assert.same({ 0 }, assert(fields.load_one(path "mixed.safetensors", "logits")):totable())
    local data = assert(samebits.load(path "mixed.safetensors"))
    assert.matches("ids: tensor 'ids': dtype 'U32'", refusal(function()
      samebits.batch { logits = samebits.zeros { 1, 3 }, ids = data.ids }
    end))
  end)

  it("copy a file, which may then be written to, shortened or removed", function()
    for order = 1, 2 do
      local held = order == 1 and t or t:transpose()
      assert(samebits.save(path "t.npy", held))
      assert(samebits.save(path "t.safetensors", { a = held, b = samebits.zeros { 3 } }))
      local copies = {
        assert(samebits.load(path "t.npy", { copy = true })),
        assert(samebits.load(path "t.safetensors", { copy = true })).a,
        assert(samebits.load(path "t.safetensors", "a", { copy = true })),
      }
      for _, name in ipairs { "t.npy", "t.safetensors" } do
        -- In place.
        local file = assert(io.open(path(name), "r+b"))
        file:write(("\255"):rep(1000))
        file:close()
        assert.equal(0, os.execute((": >'%s'"):format(path(name))))
      end
      for _, copy in ipairs(copies) do assert(samebits.same_bits(held, copy)) end
    end
  end)

  it("say so where a file changes while it is copied", function()
    local read_at = posix.read_at
    finally(function() posix.read_at = read_at end)
    local function changed(how)
      assert(samebits.save(path "t.npy", t))
      posix.read_at = function(...)
        if how then os.execute(how:format(path "t.npy")) end
        how = nil
        return read_at(...)
      end
      local loaded, why = samebits.load(path "t.npy", { copy = true })
      assert.is_nil(loaded)
      return why
    end
    assert.matches("t.npy: changed while it was read: 100 bytes were 144",
                   changed "truncate -s 100 '%s'")
    assert.matches("t.npy: changed while it was read: 145 bytes were 144", changed "echo >>'%s'")
    assert.matches("t.npy: changed while it was read: it was written to",
                   changed "touch -d 2001-01-01 '%s'")
  end)

  it("refuse what is no regular file, without waiting for it", function()
    os.execute(("mkfifo '%s'"):format(path "fifo"))
    -- In programs of their own: what waits would wait forever.
    for _, call in ipairs {
      "samebits.load(arg[1])", "samebits.load(arg[1], { copy = true })",
      "samebits.drift(arg[1], { -1 })", "samebits.drift(arg[1] .. ':a', { -1 })",
      "require('samebits.io.npy').load(arg[1])", "require('samebits.io.safetensors').load(arg[1])",
      "require('samebits.io.fields').load_one(arg[1] .. ':a', 'ids')",
      "require('samebits.vectors').read(arg[1])",
    } do
      write("call.lua", [[package.path = "lua/?.lua;" .. package.path
        local samebits = require "samebits"
        print(]] .. call .. ")")
      local script = path "call.lua"
      for _, name in ipairs { path "fifo", "/dev/zero", "/dev/tty" } do
        local text, status = shell.run(("timeout 20 luajit '%s' '%s'"):format(script, name))
        assert.equal(0, status, text)
        -- There may be no terminal to open.
        assert.is_truthy(text:find "^nil\t.*: not a regular file\n$" or
                         name == "/dev/tty" and text:find "^nil\t/dev/tty", text)
      end
    end
  end)

  it("refuse misuse", function()
    assert.matches("load: unknown option 'copi'",
                   refusal(function() local _ = samebits.load(path "x", { copi = true }) end))
    assert.matches("load: copy: expected a boolean, got number",
                   refusal(function() local _ = samebits.load(path "x", "a", { copy = 1 }) end))
    assert.matches("load: options are string, not a table",
                   refusal(function() local _ = samebits.load(path "x", "a", "copy") end))
    assert.matches("load: expected a path, got nil",
                   refusal(function() local _ = samebits.load() end))
    assert.matches("load: expected a tensor's name, got number",
                   refusal(function() local _ = samebits.load(path "x", 3) end))
    assert.matches("save: expected a path", refusal(function() samebits.save(t, path "x") end))
    assert.matches("ends neither in .npy nor in .safetensors",
                   refusal(function() samebits.save(path "x.bin", t) end))
    assert.matches("holds one tensor", refusal(function() samebits.save(path "x.npy", { t }) end))
    assert.matches("named tensors", refusal(function() samebits.save(path "x.safetensors", t) end))
  end)
end)

describe("the module", function()
  it("has this surface", function()
    local names = {}
    for name in pairs(samebits) do names[#names + 1] = name end
    table.sort(names)
    assert.same({
      "abi", "backends", "batch", "batch_from", "bits", "debug", "drift", "empty", "is_tensor",
      "kept_lists", "kept_words", "load", "logprob",
      "mask_from_lengths", "mask_from_splits", "numerics", "open", "pack", "pad", "pinned",
      "same_bits", "save", "tensor", "ulp", "verify", "version", "within_ulps", "zeros",
    }, names)
  end)
end)
