-- bin/samebits: its output on stdout and stderr, and its exit status.

local json = require "dkjson"
local samebits = require "samebits"
local hex = require "spec.support.hex"

local BIN = "bin/samebits"
local folder

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function shell(command)
  local pipe = io.popen("{ " .. command .. "\n} 2>" .. quote(folder .. "/stderr") ..
                        "; echo \"status $?\"")
  local text = pipe:read "*a"
  pipe:close()
  local file = assert(io.open(folder .. "/stderr"))
  local errors = file:read "*a"
  file:close()
  local output, status = text:match "^(.*)status (%d+)\n$"
  return { status = tonumber(status), out = output, err = errors }
end

-- Runs bin/samebits with words as they are.
local function run(...)
  local words = { BIN }
  for i, word in ipairs { ... } do words[i + 1] = quote(word) end
  return shell(table.concat(words, " "))
end

local function path(name) return folder .. "/" .. name end

local function logits_of(shape, seed)
  local n = 1
  for _, extent in ipairs(shape) do n = n * extent end
  return hex.tensor(hex.values(n, seed), shape)
end

local logits, ids, mask, want

setup(function()
  folder = os.tmpname()
  os.remove(folder)
  folder = folder .. " with spaces"
  os.execute("mkdir " .. quote(folder))

  logits = logits_of({ 2, 3, 20 }, 11)
  ids = samebits.tensor({ { 1, 2, 3 }, { 4, 5, -100 } }, { dtype = "int64" })
  mask = samebits.tensor({ { 0, 1, 1 }, { 1, 1, 1 } }, { dtype = "uint8" })
  assert(samebits.save(path "logits.npy", logits))
  assert(samebits.save(path "ids.npy", ids))
  assert(samebits.save(path "mask.npy", mask))
  assert(samebits.save(path "all.safetensors", { logits = logits:to "bfloat16", ids = ids,
                                                 mask = mask }))
  assert(samebits.save(path "other.safetensors", { a = logits, b = ids, c = mask }))
  assert(samebits.save(path "one.safetensors", { anything = logits }))
  want = samebits.logprob { logits = logits, ids = ids, mask = mask }
end)

teardown(function() os.execute("rm -r " .. quote(folder)) end)

-- One clear line on stderr, and nothing on stdout.
local function fails(result, words)
  assert.equal(2, result.status, result.err)
  assert.equal("", result.out)
  assert.matches("^samebits: [^\n]+\n$", result.err)
  assert.is_truthy(result.err:find(words, 1, true), ("'%s' lacks '%s'"):format(result.err, words))
  assert.is_nil(result.err:find("traceback", 1, true))
  assert.is_nil(result.err:find("%.lua:%d+:"), result.err)
end

local function misused(result, words)
  assert.equal(2, result.status, result.err)
  assert.equal("", result.out)
  assert.matches("^Usage: samebits", result.err)
  assert.is_truthy(result.err:find(words, 1, true), ("'%s' lacks '%s'"):format(result.err, words))
end

local function succeeds(result)
  assert.equal(0, result.status, result.err)
  assert.equal("", result.err)
  return result.out
end

local function rows(list) -- B lists to one
  local flat = {}
  for _, sequence in ipairs(list) do
    for _, x in ipairs(sequence) do flat[#flat + 1] = x end
  end
  return flat
end

describe("help and usage:", function()
  it("help, --help and help of a command go to stdout", function()
    for _, words in ipairs { { "help" }, { "--help" }, { "-h" } } do
      local out = succeeds(run(unpack(words)))
      for _, command in ipairs { "info", "logprob", "selftest", "help" } do
        assert.matches("\n%s+" .. command, out)
      end
    end
    for _, words in ipairs { { "help", "logprob" }, { "logprob", "--help" } } do
      local out = succeeds(run(unpack(words)))
      for _, option in ipairs { "--logits", "--ids", "--mask", "--cu-seqlens", "--ignore-index",
                                "--temperature", "--shift", "--backend", "--threads", "--isa",
                                "--json" } do
        assert.is_truthy(out:find(option, 1, true), option)
      end
    end
  end)

  it("--version goes to stdout, with the numerics", function()
    assert.equal(("samebits %s, numerics %d, ABI %d\n"):format(samebits.version, samebits.numerics,
                                                               samebits.abi),
                 succeeds(run "--version"))
    assert.matches("%-%-version", succeeds(run "help"))
  end)

  it("wrong usage exits 2 and shows the usage on stderr", function()
    misused(run(), "a command is required")
    misused(run "frobnicate", "unknown command 'frobnicate'")
    misused(run("help", "frobnicate"), "unknown command 'frobnicate'")
    misused(run "logprob", "give a FILE with logits and ids")
    misused(run("logprob", "--ids", "y"), "give a FILE with logits and ids")
    misused(run("logprob", "--logits"), "--logits")
    misused(run("logprob", "--logits", "x", "--ids", "y", "--bogus"), "unknown option '--bogus'")
    misused(run("verify", "x", "y"), "too many arguments")
    misused(run("logprob", "--logits", "x", "--ids", "y", "--ignore-index", "1.5"),
            "'1.5' is not an integer")
    misused(run("logprob", "--logits", "x", "--ids", "y", "--threads", "0"),
            "'0' is not an integer from 1")
    misused(run("logprob", "--logits", "x", "--ids", "y", "--json=yes"), "--json")
    misused(run("info", "--logits", "x"), "unknown option '--logits'")
  end)
end)

describe("info", function()
  it("tells the version, the numerics and each backend", function()
    local out = succeeds(run "info")
    assert.matches("samebits%s+" .. samebits.version:gsub("%.", "%%."), out)
    assert.matches("numerics%s+" .. samebits.numerics, out)
    assert.matches("abi%s+" .. samebits.abi, out)
    for _, backend in ipairs(samebits.backends()) do
      local state = backend.available and "available, " or "unavailable: " .. backend.why
      assert.is_truthy(out:find(backend.name .. ": " .. state, 1, true), out)
    end
    assert.matches("isa%s+scalar", out)
  end)
end)

describe("logprob --json", function()
  local function parsed(...)
    local object, _, problem = json.decode(succeeds(run("logprob", "--json", ...)), 1, json.null)
    assert.is_nil(problem)
    return object
  end

  local function check(object)
    assert.equal(samebits.numerics, object.numerics)
    assert.equal("string", type(object.backend))
    assert.equal(2, #object.token)
    assert.same({ 3, 3 }, { #object.token[1], #object.token[2] })
    assert.same(hex.of(want.token), rows(object.token_bits))
    assert.same(hex.of(want.lse), rows(object.lse_bits))
    assert.same(hex.of(want.sequence), object.sequence_bits)
    assert.same({ 2, 2 }, object.count)
    -- The numbers read back to the same fp32.
    assert.same(hex.of(want.token), hex.of(samebits.tensor(rows(object.token))))
    assert.same(hex.of(want.lse), hex.of(samebits.tensor(rows(object.lse))))
    assert.same(hex.of(want.sequence), hex.of(samebits.tensor(object.sequence)))
  end

  it("prints one object, from .npy files", function()
    check(parsed("--logits", path "logits.npy", "--ids", path "ids.npy", "--mask", path "mask.npy"))
  end)

  it("prints numbers that read back to the same fp32", function()
    local n = 400
    local many, targets = logits_of({ n, 20 }, 5), {}
    for i = 1, n do targets[i] = i % 20 end
    assert(samebits.save(path "many.npy", many))
    assert(samebits.save(path "targets.npy", samebits.tensor(targets, { dtype = "int32" })))
    local object = parsed("--logits", path "many.npy", "--ids", path "targets.npy", "--temperature",
                          "0.3")
    local expected = samebits.logprob { logits = many, ids = targets, temperature = 0.3 }
    assert.same(hex.of(expected.token), hex.of(samebits.tensor(object.token[1])))
    assert.same(hex.of(expected.lse), hex.of(samebits.tensor(object.lse[1])))
    assert.same(hex.of(expected.token), object.token_bits[1])
  end)

  it("prints one line", function()
    local out = succeeds(run("logprob", "--json", "--logits", path "logits.npy", "--ids",
                             path "ids.npy"))
    assert.matches("^{[^\n]*}\n$", out)
  end)

  it("finds tensors by role and by NAME in .safetensors files", function()
    local all, other = path "all.safetensors", path "other.safetensors"
    check(parsed("--logits", all, "--ids", all, "--mask", all))
    check(parsed("--logits", all .. ":logits", "--ids", all .. ":ids", "--mask", all .. ":mask"))
    check(parsed("--logits", other .. ":a", "--ids", other .. ":b", "--mask", other .. ":c"))
    check(parsed("--logits", path "one.safetensors", "--ids", all, "--mask", path "mask.npy"))
  end)

  it("prefers a path that exists as it stands", function()
    assert(os.execute(("cp %s %s"):format(quote(path "logits.npy"),
                                          quote(path "all.safetensors:ids"))) == 0)
    local all = path "all.safetensors"
    check(parsed("--logits", path "all.safetensors:ids", "--ids", all, "--mask", all))
    os.remove(path "all.safetensors:ids")
  end)

  it("takes files without an option, and uses all that they hold", function()
    local all = path "all.safetensors"
    for _, words in ipairs {
      { all }, { "--logits", all }, { "--logits", all, "--ids", all }, { all .. ":logits" },
      { all, "--mask", path "mask.npy" }, { path "logits.npy", "--ids", all },
      { path "ids.npy", path "logits.npy", "--mask", path "mask.npy" },
    } do
      check(parsed(unpack(words)))
    end
    local kept = samebits.tensor(hex.values(2 * 3 * 20, 5), { shape = { 2, 3, 20 } })
    local flags = {}
    for b = 0, 1 do
      flags[b + 1] = {}
      for t = 0, 2 do
        flags[b + 1][t + 1] = {}
        for i = 0, 19 do
          flags[b + 1][t + 1][i + 1] = (kept[b][t][i] > 0 or ids[b][t] == i) and 1 or 0
        end
      end
    end
    local spec = { logits = logits, responses = ids, response_mask = mask,
                   kept = samebits.tensor(flags, { dtype = "uint8" }),
                   temperature = samebits.tensor { 0.5, 2 }, lse = want.lse }
    assert(samebits.save(path "whole.safetensors", spec))
    local expected = samebits.logprob { logits = logits, ids = ids, mask = mask, kept = spec.kept,
                                        temperature = { 0.5, 2 } }
    local object = parsed(path "whole.safetensors")
    assert.same(hex.of(expected.token), rows(object.token_bits))
    assert.same({
      logits = path "whole.safetensors:logits", ids = path "whole.safetensors:responses",
      mask = path "whole.safetensors:response_mask", kept = path "whole.safetensors:kept",
      temperature = path "whole.safetensors:temperature",
    }, object.used)
    assert.same({ path "whole.safetensors:lse" }, object.unused)
  end)

  it("takes --ignore-index, --temperature, --shift and ways to run", function()
    local all = path "bare.safetensors"
    assert(samebits.save(all, { logits = logits:to "bfloat16", ids = ids }))
    local function same(spec, ...)
      spec.logits, spec.ids = logits, ids
      local expected = samebits.logprob(spec)
      local object = parsed("--logits", all, "--ids", all, ...)
      assert.same(hex.of(expected.token), rows(object.token_bits))
      assert.same(hex.of(expected.lse), rows(object.lse_bits))
      assert.same(hex.of(expected.sequence), object.sequence_bits)
      assert.same(expected.count:totable(), object.count)
    end
    same { ignore_index = -100 }
    local flags = samebits.tensor({ { 1, 1, 1 }, { 1, 1, 0 } }, { dtype = "bool" })
    assert(samebits.save(path "flags.npy", flags))
    same({ mask = flags, ignore_index = 2 }, "--ignore-index", "2", "--mask", path "flags.npy")
    same({}, "--ignore-index", "-100")
    same({}, "--ignore-index=-100")
    same({ temperature = 0.7 }, "--temperature", "0.7")
    same({ temperature = 0.7 }, "--temperature", ".7")
    same({ shift = true }, "--shift")
    same({ shift = true }, "--shift", "--backend", "cpu", "--threads", "2", "--isa", "scalar")
    same({}, "--backend", "auto")

    assert(samebits.save(path "t.npy", samebits.tensor { 0.5, 2 }))
    same({ temperature = { 0.5, 2 } }, "--temperature", path "t.npy")
    assert(samebits.save(path "t.npy", samebits.tensor { { 1, 2, 3 }, { 4, 5, 6 } }))
    same({ temperature = { { 1, 2, 3 }, { 4, 5, 6 } } }, "--temperature", path "t.npy")
  end)

  it("scores [N, V]: one sequence, or those of --cu-seqlens", function()
    assert(samebits.save(path "flat.npy", logits:view(6, 20)))
    assert(samebits.save(path "flat_ids.npy", ids:view(6)))
    local object = parsed("--logits", path "flat.npy", "--ids", path "flat_ids.npy")
    assert.equal(1, #object.token)
    assert.equal(6, #object.token[1])
    assert.same({ 5 }, object.count)

    assert(samebits.save(path "cu.npy", samebits.tensor({ 0, 2, 2, 6 }, { dtype = "int32" })))
    local packed = parsed("--logits", path "flat.npy", "--ids", path "flat_ids.npy", "--cu-seqlens",
                          path "cu.npy")
    assert.same({ 2, 0, 4 }, { #packed.token[1], #packed.token[2], #packed.token[3] })
    assert.same(object.token_bits[1], rows(packed.token_bits))
    assert.same({ 2, 0, 3 }, packed.count)
    assert.equal("00000000", packed.sequence_bits[2])
  end)

  it("writes null for what is not finite, and the bits that tell which", function()
    local INF = math.huge
    assert(samebits.save(path "l.npy", samebits.tensor { { { INF, 0 }, { -INF, 0 } } }))
    assert(samebits.save(path "i.npy", samebits.tensor({ { 0, 0 } }, { dtype = "int32" })))
    local object = parsed("--logits", path "l.npy", "--ids", path "i.npy")
    assert.same({ json.null, json.null }, object.token[1])
    assert.same({ "7fc00000", "ff800000" }, object.token_bits[1])
    assert.same({ json.null }, object.sequence)
    assert.same({ "7fc00000" }, object.sequence_bits)
  end)

  it("writes lists for no rows and no sequences", function()
    local function saved(shape, id_shape)
      assert(samebits.save(path "l.npy", samebits.zeros(shape)))
      assert(samebits.save(path "i.npy", samebits.zeros(id_shape, "int32")))
      return succeeds(run("logprob", "--json", "--logits", path "l.npy", "--ids", path "i.npy"))
    end
    local out = saved({ 0, 3, 5 }, { 0, 3 })
    assert.matches('"token":%[%]', out)
    assert.matches('"sequence":%[%]', out)
    assert.matches('"token":%[%[%],%[%]%]', saved({ 2, 0, 5 }, { 2, 0 }))
    assert.matches('"sequence_bits":%["00000000"%]', saved({ 0, 5 }, { 0 }))
  end)
end)

describe("logprob as text", function()
  it("tells what was used of the files, and what was not", function()
    local all = path "all.safetensors"
    local out = succeeds(run("logprob", all, "--temperature", "0.7", "--shift"))
    assert.is_truthy(out:find(([[
logits       bfloat16 [2, 3, 20]  %s:logits
ids          int64 [2, 3]         %s:ids
mask         uint8 [2, 3]         %s:mask
temperature  0.7
shift        logits of row t score id t + 1

sequence 0: ]]):format(all, all, all), 1, true), out)
    out = succeeds(run("logprob", all, "--mask", path "mask.npy"))
    assert.is_truthy(out:find("not used  " .. all .. ": mask\n", 1, true), out)
    out = succeeds(run("verify", all, "--rounds", "1"))
    assert.is_truthy(out:find("\nmask    uint8 [2, 3]         " .. all .. ":mask\n", 1, true), out)
  end)

  it("lists the active tokens of each sequence", function()
    local out = succeeds(run("logprob", "--logits", path "logits.npy", "--ids", path "ids.npy",
                             "--mask", path "mask.npy"))
    local bits = hex.of(want.token)
    for _, row in ipairs { 2, 3, 4, 5 } do assert.is_truthy(out:find(bits[row], 1, true)) end
    assert.is_nil(out:find("\n%s+%d+%s+%-100"))
    assert.matches("sequence 0: logprob %S+, bits " .. hex.of(want.sequence)[1] .. ", 2 tokens",
                   out)
    assert.matches("\n%s+1%s+5%s+%-", out)
    local width
    for line in out:gmatch "[^\n]+" do
      if line:match "^ " then
        width = width or #line
        assert.equal(width, #line, "the table is not aligned")
      end
    end
  end)
end)

describe("errors are one line on stderr and exit 2:", function()
  local function logprob(spec)
    return run("logprob", "--logits", spec.logits or path "logits.npy", "--ids", spec.ids or
               path "ids.npy",
               unpack(spec))
  end

  it("files", function()
    fails(logprob { logits = path "none.npy" }, "--logits: ")
    fails(logprob { logits = path "none.npy" }, "none.npy: No such file or directory")
    fails(logprob { logits = folder }, "--logits: ")
    fails(logprob { ids = path "other.safetensors" }, "--ids: ")
    fails(logprob { ids = path "other.safetensors" }, "it holds 'a', 'b', 'c'")
    fails(logprob { ids = path "other.safetensors:d" }, "no tensor called 'd'")
    fails(logprob { ids = path "ids.npy:d" }, "a .npy file holds one tensor")
    local file = assert(io.open(path "torn.npy", "wb"))
    file:write "\147NUMPY\1\0\118\0{'descr': '<f4',"
    file:close()
    fails(logprob { logits = path "torn.npy" }, "torn.npy: ")
    file = assert(io.open(path "text.txt", "wb"))
    file:write "hello, world\n"
    file:close()
    fails(logprob { logits = path "text.txt" }, "neither .npy nor .safetensors")
    fails(logprob { "--temperature", "hot" },
          "--temperature: 'hot' is no number, and no file has that name")
    fails(logprob { "--temperature", path "none.npy" }, "none.npy' is no number, and no file")
    assert(os.execute(("cp %s %s"):format(quote(path "text.txt"), quote(path "a.npz"))) == 0)
    file = assert(io.open(path "a.npz", "wb"))
    file:write "PK\3\4"
    file:close()
    fails(run("logprob", path "a.npz"), "a .npz archive of .npy files: save each array")
  end)

  it("files that change meanwhile", function()
    -- The command line in a program of its own, where the shell does something before samebits[at].
    local function changing(at, what, ...)
      local script = assert(io.open(path "changing.lua", "w"))
      script:write([==[package.path = "lua/?.lua;" .. package.path
        local samebits = require "samebits"
        local original = samebits[arg[1]]
        samebits[arg[1]] = function(...)
          assert(os.execute(arg[2]) == 0)
          return original(...)
        end
        os.exit(require("samebits.cli").main { unpack(arg, 3) }, true)]==])
      script:close()
      local words = { "luajit", quote(path "changing.lua"), at, quote(what) }
      for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
      return shell(table.concat(words, " "))
    end

    local l, i = path "l.safetensors", path "i.npy"
    for _, command in ipairs { { "open", "logprob", l, i }, { "open", "logprob", l, i, "--json" },
                               { "open", "logprob", "--logits", l, "--ids", i },
                               { "verify", "verify", l, "--ids", i, "--rounds", "1",
                                 "--html", path "changing.html" } } do
      local function started(what)
        assert(samebits.save(l, { logits = logits }))
        assert(samebits.save(i, ids))
        return changing(command[1], what, unpack(command, 2))
      end
      assert.equal(0, started("true").status)
      os.remove(path "changing.html")
      for _, file in ipairs { l, i } do
        fails(started("echo >>" .. quote(file)), file .. ": changed while it was in use: ")
        fails(started("touch -d 2001-01-01 " .. quote(file)), "in use: it was written to")
        fails(started("rm " .. quote(file)), file .. ": changed while it was in use: No such file")
        fails(started(("cp -p %s %s && mv %s %s"):format(quote(file), quote(file .. "2"),
              quote(file .. "2"), quote(file))), "in use: another file has taken its place")
      end
      assert.is_nil(io.open(path "changing.html"))
    end
  end)

  it("no ids, and no logits", function()
    fails(run("logprob", path "logits.npy"), "no ids in ")
    fails(run("logprob", path "logits.npy"), "name them by --ids")
    fails(run("logprob", path "one.safetensors"), "no ids in ")
    fails(run("logprob", "--logits", path "one.safetensors", "--ids", path "one.safetensors"),
          "no ids in it; it holds 'anything'")
    fails(run("logprob", path "ids.npy"), "no logits, ")
    fails(run("logprob", ""), "the path is empty")
    fails(run("verify", path "ids.npy"), "no logits, ")
    fails(run("logprob", path "logits.npy", path "all.safetensors"),
          "would both be the logits: say what they are by options")
  end)

  it("ids in the place of the mask", function()
    fails(logprob { "--mask", path "ids.npy" }, "mask: these are the ids")
    fails(run("verify", path "all.safetensors", "--mask", path "all.safetensors:ids"),
          "mask: these are the ids")
    fails(run("drift", path "all.safetensors", path "all.safetensors", "--mask", path "ids.npy"),
          "A: mask: these are the ids")
  end)

  it("shapes, dtypes and values", function()
    fails(logprob { ids = path "mask.npy", "--mask", path "logits.npy" }, "mask: dtype float32")
    fails(logprob { logits = path "ids.npy" }, "logits: dtype int64")
    assert(samebits.save(path "cut.npy", mask:slice(0, 0, 1)))
    fails(logprob { "--mask", path "cut.npy" }, "mask: shape [1, 3], expected [2, 3]")
    fails(logprob { "--ignore-index", "7" },
          "row 5 (sequence 1, position 2): id -100 is outside [0, 20)")
    fails(logprob { "--temperature", "0" }, "temperature")
    fails(logprob { "--temperature", "nan" }, "temperature")
    fails(logprob { "--cu-seqlens", path "ids.npy" }, "cu_seqlens: given with logits [2, 3, 20]")
  end)

  it("backends and instruction sets", function()
    fails(logprob { "--backend", "abacus" }, 'no backend is called "abacus"')
    fails(logprob { "--isa", "sse9" }, 'no isa is called "sse9"')
  end)

  it("an output that cannot be written", function()
    fails(shell(("%s logprob --logits %s --ids %s > /dev/full"):format(BIN,
      quote(path "logits.npy"),
                                                                       quote(path "ids.npy"))),
          "cannot write the output: No space left on device")
  end)

  it("a library that is not there", function()
    os.execute(("cp -r bin lua %s"):format(quote(folder)))
    fails(shell("SAMEBITS_LIB=./none.so " .. quote(path "bin/samebits") .. " info"),
          "cannot load ./none.so")
  end)
end)

describe("selftest", function()
  it("checks every file of vectors", function()
    local out = succeeds(run "selftest")
    for _, file in ipairs { "rows.txt", "generated.txt", "batches.txt", "constants.txt" } do
      assert.matches(file .. "%s+cpu scalar%s+%d+%s+0\n", out)
    end
    assert.matches("all bits as expected\n$", out)
  end)

  it("exits 1 and names the case where one bit is wrong", function()
    os.execute([[sed '0,/^target \(.*\) b3ffffff/s//target \1 b3fffffe/' spec/vectors/rows.txt ]] ..
               ">" .. quote(path "rows.txt"))
    local result = run("selftest", "--vectors", folder, "--only", "rows.txt")
    assert.equal(1, result.status, result.err)
    assert.matches("FAILED rows.txt:%d+: catches absent taken as 0, on cpu scalar: " ..
                   "logprob of id 0: " ..
                   "expected b3fffffe, got b3ffffff", result.out)
    assert.matches("mismatches\n$", result.out)
  end)

  it("refuses vectors of another numerics, torn ones, and none", function()
    os.execute(("sed '1s/numerics [0-9]*/numerics 99/' spec/vectors/rows.txt > %s"):format(
               quote(path "rows.txt")))
    fails(run("selftest", "--vectors", folder), "numerics 99")
    os.execute(("head -n 9 spec/vectors/rows.txt > %s"):format(quote(path "rows.txt")))
    fails(run("selftest", "--vectors", folder), "the last case has no end")
    fails(run("selftest", "--vectors", path "none"), "rows.txt: No such file or directory")
    fails(run("selftest", "--only", "rows"), "rows: No such file or directory")
  end)

  it("checks some of the files, on request", function()
    local out = succeeds(run("selftest", "--only", "shards.txt", "--only", "order.txt"))
    assert.matches("order.txt%s+cpu scalar%s+%d+%s+0\n", out)
    assert.matches("shards.txt%s+cpu scalar%s+%d+%s+0\n", out)
    assert.is_nil(out:find("rows.txt", 1, true))
  end)
end)

describe("it runs", function()
  it("from any folder, through links, and from a path with spaces", function()
    local here = io.popen("pwd -P"):read "*l"
    os.execute(("ln -s %s/bin/samebits %s"):format(quote(here), quote(path "link")))
    os.execute(("ln -s link %s"):format(quote(path "link2")))
    for _, command in ipairs {
      ("cd / && %s/bin/samebits info"):format(quote(here)),
      ("cd bin && ./samebits info"),
      ("cd bin && luajit samebits info"),
      ("cd / && %s info"):format(quote(path "link")),
      ("cd %s && ./link2 info"):format(quote(folder)),
      ("PATH=%s:$PATH; cd / && link2 info"):format(quote(folder)),
    } do
      local out = succeeds(shell(command))
      assert.is_truthy(out:find("samebits   " .. samebits.version, 1, true), command)
    end

    os.execute(("mkdir -p %s/bin %s/build/release && cp bin/samebits %s/bin && cp -r lua %s && " ..
                "cp %s %s/build/release/libsamebits.so"):format(quote(folder), quote(folder),
                                                                quote(folder),
               quote(folder), quote(require "samebits.lib".path), quote(folder)))
    local out = succeeds(shell("cd / && env -u SB_BUILD " .. quote(folder) ..
                               "/bin/samebits info"))
    assert.is_truthy(out:find(folder .. "/build/release/libsamebits.so", 1, true), out)
  end)
end)

describe("hidden states and a head in a file", function()
  local FILE = "spec/vectors/smollm2_head.safetensors"

  it("are scored by logprob, in the format that --format names", function()
    local data, ctx = assert(samebits.load(FILE)), assert(samebits.open "cpu")
    for _, format in ipairs { "h24w16", "h24w24" } do
      local result = run("logprob", FILE, "--json", "--format", format)
      assert.equal(0, result.status, result.err)
      local head = assert(ctx:head(data.head, { format = format }))
      local out = assert(ctx:logprob { hidden = data.hidden, head = head, ids = data.ids,
                                       mask = data.mask })
      assert.same(hex.of(out.sequence), json.decode(result.out).sequence_bits)
    end
    assert.matches("\nformat    h24w16\n", run("logprob", FILE).out)
  end)

  it("are verified by verify", function()
    local result = run("verify", FILE, "--rows", "8", "--rounds", "1", "--backend", "cpu")
    assert.equal(0, result.status, result.err)
    assert.matches("samebits, cpu: no bit changed in %d+ tokens\n", result.out)
  end)

  it("are not used beside logits, or one without the other", function()
    local t = samebits.zeros { 2, 3, 4 }
    assert(samebits.save(path "both.safetensors", { logits = logits, ids = ids, hidden = t,
                                                    head = samebits.zeros { 20, 4 } }))
    local result = run("logprob", path "both.safetensors")
    assert.equal(0, result.status, result.err)
    assert.matches("\nnot used [^\n]*: head, hidden\n", result.out)
    assert(samebits.save(path "alone.safetensors", { ids = ids, hidden = t }))
    fails(run("logprob", path "alone.safetensors"), "no logits")
    local refused = run("logprob", FILE, "--format", "bf16")
    assert.equal(2, refused.status)
    assert.matches("'bf16' is neither h24w16 nor h24w24\n$", refused.err)
  end)
end)
