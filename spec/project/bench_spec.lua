-- The programs that measure: that they parse, and what they make of measurements.

local shell = require "spec.support.shell"

local function lines_of(text)
  local set = {}
  for line in text:gmatch "[^\n]+" do set[line] = true end
  return set
end

describe("bench:", function()
  local python = os.getenv "PYTHON" or "python3"
  if not shell.has(python) then
    it("the programs", function() pending("no " .. python) end)
    return
  end

  it("the programs parse", function()
    local said, status = shell.run("for f in bench/*.py; do %s -c 'import ast, sys; " ..
                                   "ast.parse(open(sys.argv[1]).read())' $f || exit 1; done",
                                   python)
    assert.equal(0, status, said)
  end)

  describe("a record", function()
    local text, page, ratios

    setup(function()
      local said, status = shell.run("%s spec/support/bench_tables.py", python)
      assert.equal(0, status, said)
      text, page, ratios = said:match "^(.*)PAGE\n(.*)RATIOS\n(.*)$"
    end)

    local function has(line) assert.is_true(lines_of(text)[line] or false, line) end

    it("says what was measured", function()
      has "# Title: samebits, NVIDIA H200, 2026-11-29"
      has "- machine: one"
      has "- a note"
      has "| logprob | bf16 | 151936 | 512 | a_kernel 512 x 512 |"
    end)

    it("names the fastest peer that gives numbers, and marks one that -inf turns to NaN", function()
      has("| logprob | bf16 | 151936 | 4096 | 273.0 | 290.0 | 0.2 % | 1.062 | 290 us: yes " ..
          "| 400.1 masked (n); upstream -1 only: 3.50 ones | 1.38 | equal (64) |")
    end)

    it("tells bits that differ, and goals that were missed", function()
      has("| logprob | bf16 | 151936 | 512 | 273.0 | 43.0 | 0.2 % | 0.158 | 43 us: no " ..
          "| 400.1 masked (n); upstream -1 only: 3.50 ones | 9.30 | **3 differ** (64) |")
    end)

    it("has a column for each number of rows, the fewest first", function()
      has "| us (floor / time) | N = 7 | N = 512 | N = 4096 |"
      has "| masked (n) | 400.1 (68 %) | 400.1 (68 %) | 400.1 (68 %) |"
      has "| broken | 2.00 (13652 %) **NaN** | 2.00 (13652 %) **NaN** | 2.00 (13652 %) **NaN** |"
    end)

    it("shows one call by itself, the fastest first", function()
      assert.truthy(text:find("| broken | 2.00 | 1.0 % | 13652 % |  | **NaN** |\n" ..
                              "| ones | 3.50 | 1.0 % | 7801 % |  |  |\n", 1, true))
      has "| masked (n) | 400.1 | 1.0 % | 68 % | 1.25 GB |  |"
      has "| slow | 5000 | 0.0 % | 5 % | 12 B |  |"
    end)

    it("shows times under load, with and without clocks", function()
      has "logprob: bf16, V = 151936, N = 4096. Goal: 300 us: yes"
      has "| samebits | 289.0 | 300.0 | 1700 | 1500 | 700 | yes |"
      has "| without pynvml | 1.00 | 2.00 |  |  |  |  |"
    end)

    it("tells who gives NaN for which rows", function()
      has "| rows that are NaN | half | few |"
      has "| masked | 16 of 16 | 0 of 16 |"
      has "| slow |  | 0 of 16 |"
    end)

    it("fills the marked tables of a page", function()
      assert.equal([[
before
<!-- bench: a.md, logprob, bf16, * -->

| V | rows | samebits (us) | floor | fastest peer (us) |
| --- | --- | --- | --- | --- |
| 151936 | 4096 | 290.0 | 273.0 | 400.1 masked (n); upstream -1 only: 3.50 ones |
| 151936 | 512 | 43.0 | 273.0 | 400.1 masked (n); upstream -1 only: 3.50 ones |

<!-- bench: end -->
between
<!-- bench: a.md, *, fp16 -->

| call | V | rows | samebits (us) | floor | fastest peer (us) |
| --- | --- | --- | --- | --- | --- |

<!-- bench: end -->
after
]], page)
    end)

    it("fills the cells and ratios of the programs that a page has", function()
      assert.equal([[
<!-- ratios: a.md; bf16, V = 151936; samebits;
 N = 7; N = 4096 -->

| a | b |
| --- | --- |
| masked (n) | 115.6 | 1.38 |
| samebits | 1.00 | 1.00 |

<!-- ratios: end -->
<!-- ratios: a.md; logprob: bf16, V = 151936, N = 4096; slow; us; error -->

| a | b |
| --- | --- |
| broken | 0.00 | **NaN** |
| samebits | 0.06 | 1.0e-07 |

<!-- ratios: end -->
<!-- cells: a.md; logprob: bf16, V = 151936, N = 4096; us; error; memory -->

| a | b |
| --- | --- |
| masked (n) | 400.1 |  | 1.25 GB |
| samebits | 290.0 | 1.0e-07 |  |

<!-- cells: end -->

]], ratios)
    end)
  end)

  it("the tables of the pages are those of the records that they name", function()
    local said, status = shell.run("%s bench/tables.py --check README.md docs/*.md", python)
    assert.equal(0, status, said)
  end)
end)
