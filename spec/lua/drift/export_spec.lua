-- samebits.drift.export: one row per token that counts, which reads back to the same numbers.

local dkjson = require "dkjson"
local samebits = require "samebits"
local temporary = require "spec.support.temporary"

local NAN = 0 / 0
local A = { { -1, -2, -0.1 }, { -3, NAN, -5 } }
local B = { { -1, -2.5, -0.1 }, { -3, -4, -math.huge } }
local IDS = { { 7, 8, 9 }, { 7, 0, 1 } }

local function lines_of(text)
  local out = {}
  for line in text:gmatch "[^\r\n]+" do out[#out + 1] = line end
  return out
end

describe("an export", function()
  local files, report
  setup(function()
    files = temporary.folder()
    local path = files:write("vocab.json", [[{"=1+1":7,"a\"b\\":8,"<i>":9,"\u001b[31m":0}]])
    report = assert(samebits.drift(A, B, { ids = IDS, mask = { { 1, 1, 0 }, { 1, 1, 1 } },
                                           tokenizer = path }))
  end)
  teardown(function() files:remove() end)

  it("as CSV has a line of names and a line per token that counts", function()
    local lines = lines_of(report:csv())
    assert.equal(6, #lines)
    assert.equal("row,sequence,position,id,token,state,a,b,a_hex,b_hex,ulps,difference,ratio," ..
                 "cause,exactly,why", lines[1])
    assert.equal('0,0,0,7,"""=1+1""",equal,-1,-1,bf800000,bf800000,0,0,1,,,', lines[2])
    assert.equal('1,0,1,8,"""a\\""b\\\\""",different,-2,-2.5,c0000000,c0200000,2097152,-0.5,' ..
                 '0.60653066,unexplained,false,', lines[3])
    assert.equal('4,1,1,0,"""\\\\x1b[31m""",different,nan,-4,' .. lines[5]:match "nan,%-4,(%x+)" ..
                 ',c0800000,,nan,nan,unexplained,false,', lines[5])
    assert.matches("^5,1,2,1,,different,%-5,%-inf,c0a00000,ff800000,%d+,%-inf,0,", lines[6])
  end)

  it("as JSON lines has objects with the same values", function()
    local lines = lines_of(report:jsonl())
    assert.equal(5, #lines)
    local token = dkjson.decode(lines[2])
    assert.same({ row = 1, sequence = 0, position = 1, id = 8, token = 'a"b\\',
                  state = "different", a = -2, b = -2.5, a_hex = "c0000000", b_hex = "c0200000",
                  ulps = 2097152, difference = -0.5, ratio = 0.60653066, cause = "unexplained",
                  exactly = false }, token)
    assert.equal("nan", dkjson.decode(lines[4]).a)
    assert.equal("-inf", dkjson.decode(lines[5]).b)
  end)

  it("tells the cause of a token, in words", function()
    local values = {}
    for i = 1, 20 do values[i] = -i / 7 end
    local half = samebits.tensor(values):to("float16"):to("float32")
    local token = dkjson.decode(lines_of(samebits.drift(values, half):jsonl())[1])
    assert.same({ "container", true, "B is A, rounded to float16" },
                { token.cause, token.exactly, token.why })
  end)

  it("says which tokens count on one side only, without a difference", function()
    local one = samebits.drift({ logprobs = { -1, -2 }, mask = { 1, 0 } },
                               { logprobs = { -1, -2 }, mask = { 1, 1 } })
    local token = dkjson.decode(lines_of(one:jsonl())[2])
    assert.equal("only_b", token.state)
    assert.same({ nil, -2, nil }, { token.a, token.b, token.difference })
  end)

  it("is written into a file", function()
    assert.is_true(report:csv(files:path "out.csv"))
    assert.equal(report:csv(), files:read "out.csv")
    assert.is_true(report:jsonl(files:path "out.jsonl"))
    assert.equal(report:jsonl(), files:read "out.jsonl")
    assert.is_nil(report:csv(files:path "none/out.csv"))
    assert.error_matches(function() report:jsonl(1) end, "jsonl: the path is number, not a string")
  end)
end)
