-- .safetensors files: every rule of the format, both ways.

local ffi = require "ffi"
local safetensors = require "samebits.io.safetensors"
local samebits = require "samebits.tensor"
local malformed = require "spec.support.malformed"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"
local unsupported = require("samebits.tensor").unsupported

local says = refusal.says
local tensor = samebits.tensor

describe("safetensors", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  local function length(n)
    local out = {}
    for i = 1, 8 do
      out[i] = string.char(n % 256)
      n = math.floor(n / 256)
    end
    return table.concat(out)
  end

  local function file(header, data) return length(#header) .. header .. (data or "") end
  local function load(bytes) return safetensors.load(files:write("given.safetensors", bytes)) end
  local function refuses(bytes, ...)
    says(refusal.message(load(bytes)), "given.safetensors: ", ...)
  end

  local function entry(dtype, shape, first, last)
    return ('{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}'):format(dtype, shape, first, last)
  end
  -- A file with one tensor, called a.
  local function one(dtype, shape, first, last, data)
    return file('{"a":' .. entry(dtype, shape, first, last) .. "}", data)
  end

  describe("load", function()
    it("reads what the reference implementation writes", function()
      -- safetensors 0.8.0 for Python: save_file({"logits": fp32 [[1, 2], [3, -0.0]],
      -- "mask": bool [True, False, True]}, metadata={"k": "v"})
      local header = '{"__metadata__":{"k":"v"},"logits":{"dtype":"F32","shape":[2,2],' ..
        '"data_offsets":[0,16]},"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[16,19]}}      '
      assert.equal(0, #header % 8)
      local data, metadata = assert(load(file(header,
        "\0\0\128\63\0\0\0\64\0\0\64\64\0\0\0\128\1\0\1")))
      assert.same({ { "3f800000", "40000000" }, { "40400000", "80000000" } }, data.logits:bits())
      assert.same({ true, false, true }, data.mask:totable())
      assert.same({ k = "v" }, metadata)
      assert.equal(metadata, data.metadata)
      assert.is_nil(data.ids)
      local names = {}
      for name in pairs(data) do names[#names + 1] = name end
      table.sort(names)
      assert.same({ "logits", "mask" }, names)
      says(tostring(data), "2 tensors", "'logits': tensor float32 [2, 2] cpu")
    end)

    it("knows the dtypes", function()
      for code, name in pairs {
        F32 = "float32", F16 = "float16", BF16 = "bfloat16", F64 = "float64", I8 = "int8",
        U8 = "uint8", I16 = "int16", I32 = "int32", I64 = "int64", BOOL = "bool",
      } do
        local size = samebits.zeros({ 1 }, name).itemsize
        local t = assert(load(one(code, "[1]", 0, size, ("\1"):rep(size)))).a
        assert.same({ name, { ("01"):rep(size) } }, { t.dtype, t:bits() })
      end
    end)

    it("reads 8-bit floats as float16, every one exactly", function()
      local bytes = {}
      for i = 0, 255 do bytes[i + 1] = string.char(i) end
      for code, hex in pairs(require "spec.support.float8") do
        local encodings = {}
        for bits in hex:gmatch "%x+" do
          -- Every NaN is 7e00, as in all conversions.
          local is_nan = tonumber(bits, 16) % 0x8000 > 0x7c00
          encodings[#encodings + 1] = is_nan and "7e00" or bits
        end
        assert.equal(256, #encodings)
        for _, opts in ipairs { {}, { copy = true } } do
          local given = one(code, "[16,16]", 0, 256, table.concat(bytes))
          local t = assert(safetensors.load(files:write("float8", given), opts)).a
          assert.same({ "float16", 2, { 16, 16 } }, { t.dtype, t.itemsize, t.shape })
          local found = t:view(256):bits()
          for i = 1, 256 do assert.equal(encodings[i], found[i], code .. " " .. i - 1) end
          assert.is_true(t.owner ~= nil and t:is_contiguous())
        end
      end
      refuses(one("F8_E4M3", "[2]", 0, 4, "1234"), "F8_E4M3 [2] needs 2 bytes")
      assert.same({ 0, 3 }, assert(load(one("F8_E5M2", "[0,3]", 0, 0, ""))).a:clone().shape)
    end)

    it("complains of a dtype that is not supported where that tensor is used only", function()
      local path = files:write("mixed.safetensors", file('{"a":' .. entry("F32", "[1]", 8, 12) ..
        ',"b":' .. entry("U32", "[2]", 0, 8) .. ',"c":' .. entry("X\\u001b9", "[7,7]", 12, 13) ..
        ',"d":' .. entry("F4", "[2,3]", 13, 16) .. "}", ("\0"):rep(10) .. "\128\63abcd"))
      local data = assert(safetensors.load(path))
      assert.same({ 1 }, data.a:totable())
      for name, words in pairs { b = "tensor 'b': dtype 'U32' is not supported (F32, F16",
                                 c = "tensor 'c': dtype 'X\\x1b9' is",
                                 d = "tensor 'd': dtype 'F4'" } do
        local t = data[name]
        assert.is_false(samebits.is_tensor(t))
        says(refusal.misuse(function() return t:numel() end), words)
        says(refusal.misuse(function() return t.shape end), words)
        says(refusal.misuse(tensor, t), words)
        says(refusal.misuse(safetensors.save, files:path "out.safetensors", { t = t }), words)
        says(tostring(t), words)
        says(tostring(data), "4 tensors", "\n  " .. words, "'a': tensor float32 [1] cpu")
      end
      -- What is known of it has to hold.
      refuses(one("U32", "[2]", 0, 4, "1234"), "U32 [2] needs 8 bytes")
      refuses(one("F4", "[3]", 0, 2, "12"), "F4 [3] needs 1.5 bytes")
      refuses(one("U32", "[1]", 0, 8, "1234"), "leave the 4 bytes")
      refuses(one("X", "[1]", 0, 3, "1234"), "bytes 3 to 4 of the data belong to no tensor")
    end)

    it("takes scalars, empty tensors, empty files, any alignment and any order of names", function()
      local data = assert(load(file('{"c":' .. entry("F32", "[]", 3, 7) .. ',"b":' ..
        entry("I64", "[4,0]", 3, 3) .. ',"":' .. entry("U8", "[3]", 0, 3) .. "}   ",
        "\1\2\3\0\0\128\63")))
      assert.equal(1, data.c:get())
      assert.same({ 4, 0 }, data.b.shape)
      assert.same({ 1, 2, 3 }, data[""]:totable())
      assert.is_nil(next((assert(load(file("{}"))))))
      assert.same({}, select(2, assert(load(file '{"__metadata__":{}}'))))
    end)

    it("lets a tensor be called metadata", function()
      local data, metadata = assert(load(file('{"__metadata__":{"a":"b"},"metadata":' ..
        entry("U8", "[1]", 0, 1) .. "}", "\7")))
      assert.same({ 7 }, data.metadata:totable())
      assert.same({ a = "b" }, metadata)
    end)

    it("decodes names", function()
      local data = assert(load(file('{"a\\"\\\\\\/\\n\\u00e9\\ud83d\\ude00\195\169":' ..
        entry("U8", "[1]", 0, 1) .. "}", "\7")))
      assert.is_not_nil(rawget(data, 'a"\\/\n\195\169\240\159\152\128\195\169'))
      says(tostring(data), "'a\"\\/\\n")
    end)

    it("maps the file and never writes to it", function()
      local bytes = one("U8", "[2]", 0, 2, "\1\2")
      local data = assert(load(bytes))
      data.a:set(9, 0)
      assert.same({ 9, 2 }, data.a:totable())
      assert.equal(bytes, files:read("given.safetensors"))
    end)

    it("reaches past 4 GiB", function()
      -- A sparse file: the second tensor begins at 6 GiB and 5 bytes of its data.
      local big = 6 * 2 ^ 30 + 5
      local size = ("%.0f"):format(big)
      local header = ('{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,%s]},' ..
                      '"b":{"dtype":"F32","shape":[2],"data_offsets":[%s,%.0f]}}')
        :format(size, size, size, big + 8)
      local path = files:write("big.safetensors", file(header))
      local handle = assert(io.open(path, "r+b"))
      handle:seek("set", 8 + #header + big - 1)
      handle:write("\5\0\0\128\63\0\0\0\64")
      handle:close()
      local data = assert(safetensors.load(path))
      assert.same({ 1, 2 }, data.b:totable())
      assert.equal(5, data.a:get(big - 1))
      assert.same({ 0, 5 }, data.a:slice(0, big - 2):totable())
      assert.equal(0, data.a[2 ^ 32])
      os.remove(path)
    end)

    it("gives the system's words where there is no such file", function()
      says(refusal.message(safetensors.load(files:path("none"))), "none: No such file")
      says(refusal.message(safetensors.load(files.name)), "Is a directory")
    end)

    it("refuses headers whose length lies", function()
      refuses("", "0 bytes")
      refuses("\1\2\3\4\5\6\7", "7 bytes")
      refuses(length(3) .. "{}", "byte 0", "header of 3 bytes in a file of 10")
      refuses(length(100000001) .. "{}", "byte 0", "100000001 bytes (at most 100000000)")
      refuses(("\255"):rep(8) .. "{}", "byte 0", "(at most 100000000)")
      refuses("\0\0\0\0\0\0\0\128{}", "9.2233720368547758e+18 bytes (at most")
      refuses(length(0), "byte 8", "expected {, found nothing")
    end)

    it("refuses what is no JSON object", function()
      refuses(file "[]", "byte 8", "expected {, found '['")
      refuses(file " {}", "byte 8", "expected {, found ' '")
      refuses(file "{", "byte 9", "expected a key, found the end")
      refuses(file "{}{}", "byte 10", "'{' behind the value")
      refuses(file '{"a"', "byte 12", "expected :, found the end")
      refuses(file '{"a":', "byte 13", "expected a value, found the end")
      refuses(file '{"a":{}', "byte 15", "expected , or }, found the end")
      refuses(file '{"a":{},}', "byte 16", "expected a key, found '}'")
      refuses(file '{"a":[1,]}', "byte 16", "expected a value, found ']'")
      refuses(file '{"a":[1 2]}', "byte 16", "expected , or ], found '2'")
      refuses(file "{a:1}", "byte 9", "expected a key, found 'a'")
      refuses(file "{'a':1}", "byte 9", "expected a key, found '''")
      refuses(file '{"a":1} // no comments', "byte 16", "'/' behind")
      refuses(file '{/**/"a":1}', "byte 9", "expected a key, found '/'")
      refuses(file '\239\187\191{}', "byte 8", "expected {")
      refuses(file '{"a', "byte 9", "this string does not end")
      refuses(file '{"a\n":1}', "byte 11", "control character 0a")
      refuses(file '{"a\0":1}', "byte 11", "control character 00")
      refuses(file '{"a\\x":1}', "byte 11", "unknown escape")
      refuses(file '{"a\\u00g0":1}', "byte 11", "unknown escape")
      refuses(file '{"\\ud800":1}', "byte 10", "half a surrogate")
      refuses(file '{"\\ud800\\u0041":1}', "byte 10", "half a surrogate")
      refuses(file '{"\\udc00":1}', "byte 10", "half a surrogate")
      for word in ("true null -1 1.0 1e3 01 NaN 0x10 +1 .5"):gmatch("%S+") do
        refuses(file('{"a":{"shape":[' .. word .. "]}}"), "byte 23", "'" .. word .. "' is not")
      end
      refuses(file '{"a":[9007199254740993]}', "byte 14", "'9007199254740993' is too large")
      refuses(file '{"a":[18446744073709551616]}', "'18446744073709551616' is too large")
    end)

    it("refuses what is not UTF-8", function()
      for _, bad in ipairs {
        "\128", "\192\128", "\193\191", "\195", "\195\40", "\224\159\191", "\237\160\128",
        "\240\143\191\191", "\244\144\128\128", "\245\128\128\128", "\255", "\226\130",
      } do
        refuses(file('{"ab' .. bad .. '":' .. entry("U8", "[0]", 0, 0) .. "}"), "byte 12",
                ("not UTF-8: %02x"):format(bad:byte()))
      end
      for _, good in ipairs {
        "\194\128", "\223\191", "\224\160\128", "\237\159\191", "\238\128\128", "\239\191\191",
        "\240\144\128\128", "\244\143\191\191",
      } do
        assert(load(file('{"ab' .. good .. '":' .. entry("U8", "[0]", 0, 0) .. "}")))
      end
    end)

    it("refuses deep nesting at once", function()
      refuses(file('{"a":' .. ("["):rep(1000000)), "byte 15", "more than 3 levels")
      refuses(file(('{"a":'):rep(200000)), "more than 3 levels")
    end)

    it("reads or refuses large headers, whatever they are made of", function()
      local function text_of(piece, size)
        return file('{"__metadata__":{"k":"' .. piece:rep(size / #piece) .. '"}}')
      end
      local n = 7e7
      local _, metadata = assert(load(text_of("x", n)))
      -- Not assert.equal, which would print them.
      assert.is_true(metadata.k == ("x"):rep(n))
      assert.is_nil(next((assert(load(file("{" .. (" "):rep(n) .. "}"))))))
      refuses(file('{"a":[' .. ("0,"):rep(n / 2) .. "0]}"), "byte 142: header: more than 64")
      n = n / 10
      for piece, value in pairs { ["\\u20ac"] = "\226\130\172",
                                  ["\240\159\152\128"] = "\240\159\152\128" } do
        _, metadata = assert(load(text_of(piece, n)))
        assert.is_true(metadata.k == value:rep(n / #piece))
      end
      refuses(text_of("\226\130\172\255", n), "byte 33: header: not UTF-8: ff")
      refuses(file('{"a":' .. ("1"):rep(n) .. "}"), "byte 13: header: '1111", "is too large")
      local keys = {}
      for i = 1, 1.2e6 do keys[i] = ('"%x":""'):format(i) end
      refuses(file("{" .. table.concat(keys, ",") .. "}"), "more than 1048576 keys")
    end)

    it("reads 50000 tensors in any order", function()
      local parts, count = {}, 50000
      for i = 1, count do parts[i] = ('"%d":'):format(i) .. entry("U8", "[1]", count - i,
                                                                  count - i + 1) end
      local path = files:write("many", file("{" .. table.concat(parts, ",") .. "}",
                                            ("\7"):rep(count - 1) .. "\9"))
      local data = assert(safetensors.load(path))
      assert.equal(9, data["1"]:get(0))
      assert.equal(7, data["50000"]:get(0))
    end)

    it("refuses equal keys, however they are spelt", function()
      local e = entry("U8", "[0]", 0, 0)
      refuses(file('{"a":' .. e .. ',"a":' .. e .. "}"), "byte 61", "key 'a' twice")
      refuses(file('{"a":' .. e .. ',"\\u0061":' .. e .. "}"), "byte 61", "key 'a' twice")
      refuses(file '{"a":{"dtype":"U8","dtype":"U8"}}', "byte 27", "key 'dtype' twice")
      refuses(file '{"__metadata__":{"k":"1","k":"2"}}', "key 'k' twice")
      refuses(file '{"__metadata__":{},"__metadata__":{}}', "key '__metadata__' twice")
    end)

    it("refuses entries that are none", function()
      refuses(file '{"a":1}', "tensor 'a': its entry is not an object")
      refuses(file '{"a":[]}', "tensor 'a': its entry is not an object")
      refuses(file '{"a":{}}', "tensor 'a': no dtype")
      refuses(file '{"a":{"dtype":["F32"]}}', "dtype is not a string")
      refuses(file '{"a":{"dtype":"F32"}}', "no shape")
      refuses(file '{"a":{"dtype":"F32","shape":4}}', "shape is not a list")
      refuses(file '{"a":{"dtype":"F32","shape":{}}}', "shape is not a list")
      refuses(file '{"a":{"dtype":"F32","shape":["1"]}}', "shape is not a list of integers")
      refuses(file '{"a":{"dtype":"F32","shape":[]}}', "no data_offsets")
      for _, bad in ipairs { "[]", "[0]", "[0,4,8]", '["0","4"]', "{}", "4" } do
        refuses(file('{"a":{"dtype":"F32","shape":[],"data_offsets":' .. bad .. "}}", "1234"),
                "tensor 'a': data_offsets are not two integers")
      end
      refuses(file '{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}}', "unknown key 'x'")
      refuses(file '{"__metadata__":[]}', "__metadata__ is not an object")
      refuses(file '{"__metadata__":{"k":1}}', "__metadata__: the value of 'k' is not a string")
      refuses(file '{"__metadata__":{"k":{}}}', "'k' is not a string")
    end)

    it("refuses data_offsets that do not fit shape and file", function()
      refuses(one("F32", "[2]", 0, 4, "1234"), "tensor 'a': F32 [2] needs 8 bytes", "[0, 4] hold 4")
      refuses(one("F32", "[]", 4, 0, "1234"), "[4, 0] run backwards")
      refuses(one("F32", "[]", 0, 4, "123"), "[0, 4] leave the 3 bytes of data")
      refuses(one("F32", "[]", 0, 4, "12345"), "bytes 4 to 5 of the data belong to no tensor")
      refuses(one("F32", "[]", 1, 5, "12345"), "bytes 0 to 1 of the data belong to no tensor")
      refuses(one("U8", "[4294967296,4294967296]", 0, 0), "too many elements")
      refuses(one("U8", "[4294967296,4294967296,0]", 0, 0), "too many elements")
      refuses(one("F64", "[9007199254740992]", 0, 0), "needs 72057594037927936 bytes")
      refuses(file("{}", "1"), "bytes 0 to 1 of the data belong to no tensor")
      local function two(first, last, data)
        return file('{"a":' .. entry("U8", "[4]", 0, 4) .. ',"b":' ..
                    entry("U8", "[" .. last - first .. "]", first, last) .. "}", data)
      end
      assert(load(two(4, 6, "123456")))
      refuses(two(3, 6, "123456"), "tensors 'a' and 'b' overlap", "byte 4", "begins at 3")
      refuses(two(0, 4, "1234"), "tensors 'a' and 'b' overlap")
      refuses(two(1, 3, "1234"), "overlap")
      refuses(two(2, 2, "1234"), "overlap")
      refuses(two(5, 6, "123456"), "bytes 4 to 5")
      -- The one that overlaps is named, not the last one before.
      refuses(file('{"a":' .. entry("U8", "[4]", 0, 4) .. ',"b":' .. entry("U8", "[4]", 4, 8) ..
                   ',"c":' .. entry("U8", "[1]", 2, 3) .. "}", "12345678"),
              "tensors 'a' and 'c' overlap: one ends at byte 4 of the data, the other begins at 2")
    end)

    it("stands any damage", function()
      local corpus = {
        file('{"__metadata__":{"k":"v"},"logits":' .. entry("F32", "[2,2]", 0, 16) .. ',"mask":' ..
             entry("BOOL", "[3]", 16, 19) .. "}", ("1"):rep(19)),
        file('{"a":' .. entry("I64", "[]", 0, 8) .. ',"b":' .. entry("I8", "[0]", 8, 8) .. "}   ",
             "12345678"),
        file('{"\\u00e9\195\169":' .. entry("BF16", "[1,2,1]", 0, 4) .. "}", "1234"),
      }
      local loaded = malformed.fuzz {
        random = prng.new(2), count = 3000, corpus = corpus, header = 140, files = files,
        load = safetensors.load,
        words = {
          '"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"F32"', '"U32"', "{", "}", "[",
          "]", ":", ",", '"', "\\", "\\u00e9", "\\ud800", "\\u0000", "null", "true", "1e3", "-1",
          "0.5", "01", "0", "9007199254740992", "18446744073709551615", "[]", "{}", "[0,0]",
          "[24,0]", '"a":', "\255", "\0", "\n", "/* x */", "\239\187\191", ("["):rep(1000),
          ('{"a":'):rep(500),
        },
        -- Makes the length fit the object again.
        mend = function(bytes)
          local _, last = bytes:find("^.*}}")
          if not last or last <= 8 then return bytes end
          return length(last - 8) .. bytes:sub(9)
        end,
        use = function(data, size)
          for _, t in pairs(data) do
            assert(#tostring(t) > 0)
            if not unsupported.why(t) then
              assert(t:numel() <= size)
              t:contiguous()
            end
          end
        end,
      }
      -- Else the damage is not subtle enough to find anything.
      assert.is_true(loaded > 30, loaded .. " loaded")
    end)
  end)

  describe("save", function()
    it("writes the same bytes for the same tensors: names sorted, tensors aligned", function()
      local path = files:path("out.safetensors")
      assert.is_true(safetensors.save(path, {
        mask = tensor({ true, false, true }, { dtype = "bool" }),
        logits = tensor { { 1, 2 } }, half = tensor({ 1 }, { dtype = "bfloat16" }),
      }, { z = "1", a = 'q"' }))
      local header = '{"__metadata__":{"a":"q\\"","z":"1"},' ..
        '"half":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},' ..
        '"logits":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},' ..
        '"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[10,13]}}'
      header = header .. (" "):rep(-#header % 8)
      assert.equal(file(header, "\0\0\128\63\0\0\0\64\128\63\1\0\1"), files:read("out.safetensors"))
      assert.is_true(safetensors.save(path, {}))
      assert.equal(file("{}      "), files:read("out.safetensors"))
    end)

    it("comes back in every dtype and shape, with names and metadata", function()
      local path, random = files:path("out.safetensors"), prng.new(6)
      local given = {}
      for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64", "int8", "uint8",
                               "int16", "int32", "int64", "bool" } do
        for i, shape in ipairs { {}, { 0 }, { 7 }, { 3, 2 }, { 2, 0, 4 }, { 2, 3, 2 } } do
          local t = samebits.zeros(shape, dtype)
          for k = 0, t:numel() * t.itemsize - 1 do t.ptr[k] = random:integer(0, 255) end
          if #shape > 1 then t = t:transpose(0, 1) end
          given[("%s \n\"\\/\195\169\240\159\152\128\127 %d"):format(dtype, i)] = t
        end
      end
      local metadata = { [""] = "", ["\226\128\168\0"] = "\1\31\"\\\195\169" }
      assert.is_true(safetensors.save(path, given, metadata))
      local data, back = assert(safetensors.load(path))
      assert.same(metadata, back)
      local n = 0
      for name, t in pairs(data) do
        assert.same_bits(given[name], t, name)
        -- Aligned, so that anything may read it in place.
        assert.equal(0, tonumber(ffi.cast("uintptr_t", t.ptr) % t.itemsize))
        n = n + 1
      end
      assert.equal(60, n)
      local bytes = files:read("out.safetensors")
      assert.is_true(safetensors.save(path, data, back))
      assert.equal(bytes, files:read("out.safetensors"))
    end)

    it("says why it cannot, and leaves nothing behind", function()
      local before = files:names()
      says(refusal.message(safetensors.save(files:path("no/such"), {})), "No such file")
      says(refusal.message(safetensors.save(files.name, {})), "Is a directory")
      assert.same(before, files:names())
    end)

    it("is told misuse at the caller's line", function()
      local path, t = files:path("misuse.safetensors"), tensor { 1 }
      local save = safetensors.save
      says(refusal.misuse(safetensors.load, 1), "safetensors.load: the path is number")
      says(refusal.misuse(save, nil, {}), "safetensors.save: the path is nil")
      says(refusal.misuse(save, path, t), "got a tensor")
      says(refusal.misuse(save, path, 1), "got number")
      says(refusal.misuse(save, path, { t }), "the name 1 is not a string")
      says(refusal.misuse(save, path, { a = 1 }), "'a' is not a tensor but number")
      says(refusal.misuse(save, path, { ["a\255"] = t }), "the name 'a\\xff' is not UTF-8")
      says(refusal.misuse(save, path, { __metadata__ = t }), "cannot be called __metadata__")
      says(refusal.misuse(save, path, {}, "x"), "the metadata is string")
      says(refusal.misuse(save, path, {}, { a = 1 }), "the metadata's value 1 is not a string")
      says(refusal.misuse(save, path, {}, { "a" }), "the metadata's key 1 is not a string")
      local far = tensor(ffi.cast("void *", 64), { shape = { 1 }, dtype = "int8", device = "cuda" })
      says(refusal.misuse(save, path, { a = far }), "'a' are on cuda:0")
      assert.is_nil(io.open(path))
    end)
  end)
end)
