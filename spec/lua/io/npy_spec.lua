-- .npy files: what numpy writes, what we write, and everything that must be refused.

local ffi = require "ffi"
local npy = require "samebits.io.npy"
local samebits = require "samebits.tensor"
local malformed = require "spec.support.malformed"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"

local says = refusal.says

describe("npy", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  -- A file of a header's text and data.
  local function file(dict, data, version)
    version = version or 1
    local length = #dict
    local head = "\147NUMPY" .. string.char(version, 0, length % 256, math.floor(length / 256))
    if version > 1 then head = head .. "\0\0" end
    return head .. dict .. (data or "")
  end

  local function load(bytes) return npy.load(files:write("given.npy", bytes)) end

  local function refuses(bytes, ...) says(refusal.message(load(bytes)), "given.npy: ", ...) end

  local function dict(descr, shape, fortran)
    return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"):format(
      descr, fortran or "False", shape)
  end

  describe("load", function()
    it("reads what numpy.save writes", function()
      -- numpy 2.4.6: np.save(path, np.array([[1, 2, 3], [4, 5, -0.0]], '<f4'))
      local t = assert(load("\147NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, " ..
        "'shape': (2, 3), }" .. (" "):rep(58) .. "\n" ..
        "\0\0\128\63\0\0\0\64\0\0\64\64\0\0\128\64\0\0\160\64\0\0\0\128"))
      assert.equal("float32", t.dtype)
      assert.same({ { "3f800000", "40000000", "40400000" },
                    { "40800000", "40a00000", "80000000" } }, t:bits())
      assert.is_true(t:is_contiguous())
    end)

    it("knows the dtypes", function()
      for descr, case in pairs {
        ["<f4"] = { "float32", "\0\0\128\63", "3f800000" },
        ["<f2"] = { "float16", "\0\60", "3c00" },
        ["<f8"] = { "float64", "\1\2\3\4\5\6\7\8", "0807060504030201" },
        ["<V2"] = { "bfloat16", "\128\63", "3f80" }, ["|V2"] = { "bfloat16", "\128\63", "3f80" },
        ["<i2"] = { "int16", "\1\2", "0201" }, ["<i4"] = { "int32", "\1\2\3\4", "04030201" },
        ["<i8"] = { "int64", "\1\2\3\4\5\6\7\8", "0807060504030201" },
        ["|i1"] = { "int8", "\255", "ff" }, ["|u1"] = { "uint8", "\255", "ff" },
        ["|b1"] = { "bool", "\1", "01" },
      } do
        local t = assert(load(file(dict(descr, "()") .. "\n", case[2])))
        assert.same({ case[1], case[3], 0 }, { t.dtype, t:bits(), t.ndim })
      end
    end)

    it("reads versions 1.0, 2.0 and 3.0, any shape, either order", function()
      for version = 1, 3 do
        local t = assert(load(file(dict("|u1", "(2, 3)", "True"), "\0\3\1\4\2\5", version)))
        assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, t:totable())
        assert.same({ 1, 2 }, t.strides)
      end
      assert.same({ 5 }, assert(load(file(dict("|u1", "(5,)"), "12345"))).shape)
      assert.same({ 4, 0, 3 }, assert(load(file(dict("<f8", "(4, 0, 3)")))).shape)
      assert.same({ 1, 2, 1 }, assert(load(file(dict("|u1", "(1, 2, 1,)"), "12"))).shape)
    end)

    it("reads a dict of another style", function()
      local t = assert(load(file(
        '{\n"shape":( 2 ,\t1 ),"fortran_order" : True,\'descr\':"<i2"}  \n \n', "\1\0\2\0")))
      assert.same({ { 1 }, { 2 } }, t:totable())
    end)

    it("maps the file and never writes to it", function()
      local bytes = file(dict("|u1", "(3,)"), "\1\2\3")
      local t = assert(load(bytes))
      t:set(9, 1)
      assert.same({ 1, 9, 3 }, t:totable())
      assert.equal(bytes, files:read("given.npy"))
      assert.same({ 1, 2, 3 }, assert(npy.load(files:path("given.npy"))):totable())
    end)

    it("keeps the map while a view is alive, and closes the file at once", function()
      local function descriptors()
        local n = 0
        local pipe = io.popen(("ls /proc/%d/fd"):format(require("samebits.io.posix").pid()))
        for _ in pipe:lines() do n = n + 1 end
        pipe:close()
        return n
      end
      local before = descriptors()
      local views = {}
      for i = 1, 50 do
        local t = assert(load(file(dict("|u1", "(2, 2)"), "\1\2\3" .. string.char(i))))
        views[i] = t:select(0, 1)
      end
      refuses("nothing")
      -- 50 if files stayed open; one or two may be open elsewhere in the process
      assert.is_true(descriptors() < before + 10)
      collectgarbage()
      collectgarbage()
      for i = 1, 50 do assert.equal(i, views[i]:get(1)) end
    end)

    it("gives the system's words where there is no such file", function()
      says(refusal.message(npy.load(files:path("none.npy"))), "none.npy: No such file or directory")
      says(refusal.message(npy.load(files.name)), "Is a directory")
      os.execute(("mkfifo '%s'"):format(files:path("fifo")))
      says(refusal.message(npy.load(files:path("fifo"))), "not a regular file")
    end)

    it("refuses what does not start like a .npy file", function()
      refuses("", "0 bytes")
      refuses("\147NUMPY\1\0v", "9 bytes")
      refuses("PK\3\4" .. ("x"):rep(100), "byte 0", "'PK\\x03\\x04xx'")
      refuses("\147NUMPY\4\0" .. ("x"):rep(100), "byte 6", "version 4.0")
      refuses("\147NUMPY\1\1" .. ("x"):rep(100), "byte 6", "version 1.1")
      refuses("\147NUMPY\0\0" .. ("x"):rep(100), "byte 6", "version 0.0")
    end)

    it("refuses headers whose length lies", function()
      refuses("\147NUMPY\1\0\255\255{}", "byte 8", "header of 65535 bytes in a file of 12")
      refuses("\147NUMPY\2\0\255\255\255\255{}", "byte 8", "4294967295 bytes in a file of 14")
      refuses("\147NUMPY\2\0\0\0\0", "11 bytes")
      refuses("\147NUMPY\2\0\1\0\16\0" .. (" "):rep(0x100001), "byte 8", "1048577 bytes (at most")
      refuses("\147NUMPY\1\0\0\0", "byte 10", "expected {, found the end")
    end)

    it("refuses headers that are not the dict they should be", function()
      local good = dict("<f4", "(1,)")
      assert(load(file(good, "1234")))
      local function changed(from, to)
        local at, last = good:find(from, 1, true)
        return file(good:sub(1, at - 1) .. to .. good:sub(last + 1), "1234")
      end
      refuses(changed("'descr'", "'dtype'"), "byte 18", "unknown key 'dtype'")
      refuses(changed("'descr': '<f4', ", ""), "key 'descr' is missing")
      refuses(changed("'fortran_order': False, ", ""), "key 'fortran_order' is missing")
      refuses(changed("'shape': (1,), ", ""), "key 'shape' is missing")
      refuses(changed("'fortran_order'", "'descr'"), "key 'descr' twice")
      refuses(changed("False", "0"), "True or False, found '0'")
      refuses(changed("False", "Nope"), "found 'Nope'")
      refuses(changed("(1,)", "(1)"), "not a tuple")
      refuses(changed("(1,)", "[1]"), "expected the ( of a shape, found '['")
      refuses(changed("(1,)", "(-1,)"), "expected a size of digits in the shape, found '-'")
      refuses(changed("(1,)", "(1 1)"), "expected , or ), found '1'")
      refuses(changed("(1,)", "(,)"), "found ','")
      refuses(changed("(1,)", "(1,,)"), "found ','")
      refuses(changed("(1,)", "(1.0,)"), "found '.'")
      refuses(changed("(1,)", "(0x1,)"), "found 'x'")
      refuses(changed("'<f4'", "['<f4']"), "structured")
      refuses(changed("'<f4'", "None"), "descr: expected a string, found 'N'")
      refuses(changed("'<f4'", "'<f4"), "byte ")
      refuses(changed(", }", "x}"), "expected , or }, found 'x'")
      refuses(changed(", }", ""), "expected , or }, found the end")
      refuses(changed("}", "} 1"), "'1' behind the dict")
      refuses(changed("{", ""), "byte 10", "expected {, found '''")
      refuses(changed("{", "\0{"), "found '\\x00'")
      refuses(changed("'shape'", "__import__('os')"), "expected a key, found '_'")
    end)

    it("refuses dtypes by name", function()
      refuses(file(dict(">f4", "(1,)"), "1234"), "byte 20", "'>f4' is big-endian", "'<f4'")
      for _, descr in ipairs { "<u4", "<c8", "|O", "<f16", "|S4", "<U1", "f4", "<V4", "" } do
        refuses(file(dict(descr, "(1,)"), "1234"), "byte 20", "dtype '" .. descr .. "'")
      end
      refuses(file(dict("\27[31m", "(1,)"), "1234"), "'\\x1b[31m'")
    end)

    it("refuses data that the shape does not fit", function()
      refuses(file(dict("<f4", "(2,)"), "1234567"), "truncated", "float32 [2] needs 8 bytes", "67",
              "ends at 74")
      refuses(file(dict("<f4", "(2,)"), "123456789"), "byte 75", "1 bytes behind the array")
      refuses(file(dict("<f4", "(0,)"), "1"), "1 bytes behind the array")
      refuses(file(dict("|u1", "(9007199254740993,)")), "'9007199254740993' is too large")
      refuses(file(dict("|u1", "(01,)"), "1"), "'01' is no number")
      refuses(file(dict("|u1", "(99999999999999999999,)")), "'99999999999999999999' is too large")
      refuses(file(dict("<f4", "(4294967296, 4294967296)")), "too many elements")
      refuses(file(dict("<f8", "(3037000500, 3037000500, 0)")), "too many elements")
      refuses(file(dict("<f4", "(4503599627370496,)")), "truncated", "18014398509481984 bytes")
      refuses(file(dict("|u1", "(" .. ("1,"):rep(65) .. ")"), "1"), "65 dimensions")
    end)

    it("stands any damage", function()
      local corpus = {
        file(dict("<f4", "(2, 3)"), ("1234"):rep(6)), file(dict("|V2", "()"), "12", 2),
        file(dict("<i8", "(3, 0)", "True"), "", 3), file(dict("|b1", "(5,)"), "\0\1\2\3\4"),
      }
      local loaded = malformed.fuzz {
        random = prng.new(1), count = 3000, corpus = corpus, header = 75, files = files,
        load = npy.load,
        words = {
          "'descr'", "'shape'", "'fortran_order'", "'<f4'", "'>f4'", "'|V2'", "True", "False", "(",
          ")", ",", "{", "}", "[", "()", "(1,)", "(2, 3)", "(0, 9007199254740992)", "3", "\n", " ",
          '"', "\\", "\0", "\255", "(9007199254740992, 9007199254740992)", "99999999999999999999",
        },
        -- Makes the length fit the dict again.
        mend = function(bytes)
          local last = bytes:find("}[^}]*$")
          local length = (last or 0) - (bytes:byte(7) == 1 and 10 or 12)
          if length < 0 then return bytes end
          return bytes:sub(1, 8) .. string.char(length % 256, math.floor(length / 256) % 256) ..
                 bytes:sub(11)
        end,
        use = function(t, size)
          assert(t:numel() * t.itemsize <= size)
          assert(#tostring(t) > 0)
          t:contiguous()
        end,
      }
      -- Else the damage is not subtle enough to find anything.
      assert.is_true(loaded > 30, loaded .. " loaded")
    end)
  end)

  describe("save", function()
    it("writes what numpy reads, aligned to 64 bytes", function()
      local path = files:path("out.npy")
      local t = samebits.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "int16" })
      assert.is_true(npy.save(path, t))
      local bytes = files:read("out.npy")
      assert.equal(file(dict("<i2", "(2, 3)") .. (" "):rep(58) .. "\n", "\1\0\2\0\3\0\4\0\5\0\6\0"),
                   bytes)
      assert.equal(128 + 12, #bytes)
    end)

    it("comes back in every dtype and shape", function()
      local path, random = files:path("out.npy"), prng.new(5)
      for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64", "int8", "uint8",
                               "int16", "int32", "int64", "bool" } do
        for _, shape in ipairs { {}, { 0 }, { 7 }, { 3, 2 }, { 2, 0, 4 }, { 2, 3, 2 },
                                 { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2 } } do
          local t = samebits.zeros(shape, dtype)
          for i = 0, t:numel() * t.itemsize - 1 do t.ptr[i] = random:integer(0, 255) end
          assert.is_true(npy.save(path, t))
          assert.same_bits(t, assert(npy.load(path)))
          if #shape > 1 then
            assert.is_true(npy.save(path, t:transpose(0, 1)))
            assert.same_bits(t:transpose(0, 1), assert(npy.load(path)))
          end
        end
      end
    end)

    it("replaces a file whole, and may replace the one it reads", function()
      local path = files:path("self.npy")
      local t = samebits.tensor { 1, 2, 3 }
      assert.is_true(npy.save(path, t))
      local map = assert(npy.load(path))
      assert.is_true(npy.save(path, map:slice(0, 1)))
      assert.same({ 2, 3 }, assert(npy.load(path)):totable())
      assert.same({ 1, 2, 3 }, map:totable())
      for _, name in ipairs(files:names()) do assert.is_nil(name:find("tmp")) end
    end)

    it("follows a link", function()
      local path = files:path("target.npy")
      assert.is_true(npy.save(path, samebits.tensor { 1 }))
      os.execute(("ln -s target.npy '%s'"):format(files:path("link.npy")))
      assert.is_true(npy.save(files:path("link.npy"), samebits.tensor { 2 }))
      assert.same({ 2 }, assert(npy.load(path)):totable())
    end)

    it("says why it cannot, and leaves nothing behind", function()
      local t = samebits.tensor { 1 }
      -- A FIFO stands for every special file. Never a device: a broken save would replace it.
      os.execute(("mkfifo '%s'"):format(files:path("special")))
      local before = files:names()
      says(refusal.message(npy.save(files:path("no/such.npy"), t)), "No such file or directory")
      says(refusal.message(npy.save(files.name, t)), "Is a directory")
      says(refusal.message(npy.save(files:path("special"), t)), "special: not a regular file")
      assert.same(before, files:names())
      -- A limit on the size of files stands for a full disk.
      local script = files:write("full.lua", [[
        local ffi = require "ffi"
        ffi.cdef "void *signal(int number, void *handler);"
        ffi.C.signal(25, ffi.cast("void *", 1))
        local t = require("samebits.tensor").zeros({ 100000 })
        print(require("samebits.io.npy").save(arg[1], t))]])
      local old = npy.save(files:path("full.npy"), t) and files:read("full.npy")
      local pipe = io.popen(("ulimit -f 8; LUA_PATH='%s' luajit '%s' '%s' 2>&1"):format(
        package.path, script, files:path("full.npy")))
      says(pipe:read("*a"), "nil", "full.npy: File too large")
      pipe:close()
      assert.equal(old, files:read("full.npy"))
      for _, name in ipairs(files:names()) do assert.is_nil(name:find("tmp")) end
    end)
  end)

  it("is told misuse at the caller's line", function()
    local t = samebits.tensor { 1 }
    says(refusal.misuse(npy.load, nil), "npy.load: the path is nil")
    says(refusal.misuse(npy.load, ""), "the path is empty")
    says(refusal.misuse(npy.load, "a\0b"), "NUL")
    says(refusal.misuse(npy.save, 7, t), "npy.save: the path is number")
    says(refusal.misuse(npy.save, "x.npy", { 1 }), "table is not a tensor")
    local far = samebits.tensor(ffi.cast("void *", 64), { shape = { 1 }, dtype = "int8",
                                                          device = "cuda" })
    says(refusal.misuse(npy.save, "x.npy", far), "on cuda:0")
  end)
end)
