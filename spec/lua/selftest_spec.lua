-- The check of golden vectors: what it counts, what it says of a bit that is wrong, and its text.

local selftest = require "samebits.selftest"
local variants = require "samebits.variants"
local read = require("spec.support.files").read
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"

-- The first two cases of a file of rows.
local rows = read(selftest.directory .. "/rows.txt"):match "^.-\nend\n.-\nend\n"

local folder, scalar
setup(function()
  folder = temporary.folder()
  for _, at in ipairs(variants.list()) do
    if at.name == "cpu scalar" then scalar = at end
  end
end)
teardown(function() folder:remove() end)

-- The report for a text in the place of rows.txt, and the calls of progress.
local function report_of(text)
  folder:write("rows.txt", text)
  local calls = {}
  return selftest.run { directory = folder.name, files = { "rows.txt" }, variants = { scalar },
                        progress = function(...) calls[#calls + 1] = { ... } end }, calls
end

describe("the selftest", function()
  it("counts cases by file and variant", function()
    local report, calls = report_of(rows)
    assert.same({ counts = { { file = "rows.txt", variant = "cpu scalar", cases = 2, failed = 0 } },
                  missing = {}, failures = {}, failed = 0 }, report)
    assert.same({ { 2, 2, "rows.txt" } }, calls)
    assert.matches("\nall bits as expected\n$", selftest.text(report))
  end)

  it("tells each case that fails, by its line, with both values", function()
    for field, said in pairs {
      ["\nlse "] = "lse: expected 12345678, got %x+",
      ["\ntarget %d+ "] = "logprob of id 0: expected 12345678, got %x+",
      ["\nstate "] = "state of 16 ids from 0 on, target 0: expected 12345678%x+, got %x+",
    } do
      local text, count = rows:gsub("(" .. field .. ")%x%x%x%x%x%x%x%x", "%112345678", 1)
      assert.equal(1, count)
      local report = report_of(text)
      assert.equal(1, report.failed)
      assert.equal(1, report.counts[1].failed)
      assert.matches("^rows.txt:3: [%w ]+, on cpu scalar: " .. said .. "$", report.failures[1])
    end
  end)

  -- A word of the first case, or a message, is another: the check says where.
  it("tells what differs in draws from shards and in derivatives through a head", function()
    for _, of in ipairs {
      { "draws.txt", "(\nmessage 0 1 )10000000", "%120000000",
        "round 0, shard 1, from byte 0 on: expected 2000000001000000, got 1000000001000000" },
      { "draws.txt", "(\nmessage 1 0 )00", "%101",
        "round 1, shard 0, from byte 0 on: expected %x+, got %x+" },
      { "draws.txt", "(\ndrawn )%d+", "%177", "token of shard 0: expected 77, got %d+" },
      { "draws.txt", "(\ndrawn %d+ )%x+", "%112345678",
        "logprob of shard 0: expected 12345678, got %x+" },
      { "draws.txt", "\nmessage 1 1 [^\n]+", "", "error: .*" },
      { "head_backward.txt", "(\nby_hidden )%x+", "%1123456789abcdef0",
        "1 micro%-batches, chunks of 1 ids: by hidden, element 0: " ..
        "expected 123456789abcdef0, got %x+" },
      { "head_backward.txt", "\nby_bias [^\n]+", "%0 0000000000000000", "by bias, element 1: .*" },
    } do
      local first = read(selftest.directory .. "/" .. of[1]):match "^.-\nend\n"
      local text, count = first:gsub(of[2], of[3], 1)
      assert.equal(1, count, of[2])
      folder:write(of[1], text)
      local report = assert(selftest.run { directory = folder.name, files = { of[1] },
                                           variants = { scalar } })
      assert.equal(1, report.failed, of[2])
      assert.matches(of[4] .. "$", report.failures[1])
    end
  end)

  it("shows 20 failures, and how many more there are", function()
    local failures = {}
    for i = 1, 22 do failures[i] = "case " .. i end
    local text = selftest.text {
      counts = { { file = "a.txt", variant = "cpu scalar", cases = 30, failed = 22 } },
      missing = { { name = "cuda", why = "no driver" } }, failures = failures, failed = 22,
    }
    refusal.says(text, "a.txt             cpu scalar                           30      22\n",
                 "not here: cuda: no driver\n", "FAILED case 20\nand 2 more\n22 mismatches\n")
  end)

  it("is refused with vectors that cannot be read", function()
    folder:write("rows.txt", (rows:gsub("\nend\n$", "\n")))
    local function run() return selftest.run { directory = folder.name, files = { "rows.txt" } } end
    refusal.says(refusal.message(run()), "the last case has no end")
    os.remove(folder:path "rows.txt")
    refusal.says(refusal.message(run()), "rows.txt: No such file or directory")
  end)
end)
