-- The locals and upvalues of a function that waits: read, written, and refused from elsewhere.

local frames = require "samebits.repl.frame"

describe("frames:", function()
  local outer = 10

  local function inside(a, use)
    local b, hidden = a + outer, "first" -- luacheck: ignore
    do
      local gone = 1 -- luacheck: ignore
    end
    local hidden = "second" -- luacheck: ignore
    local nothing -- luacheck: ignore
    use(frames.at(1))
    return a, b, outer, hidden
  end

  it("locals and upvalues are read, the inner of two first, and nil is found", function()
    local seen = {}
    inside(1, function(frame)
      for _, name in ipairs { "a", "b", "hidden", "nothing", "outer", "gone", "print" } do
        seen[name] = { frame:get(name) }
      end
      seen.names = { frame:names() }
    end)
    assert.same({ a = { true, 1 }, b = { true, 11 }, hidden = { true, "second" },
                  nothing = { true }, outer = { true, 10 }, gone = { false }, print = { false },
                  names = { { "a", "b", "hidden", "nothing", "use" }, { "frames", "outer" } } },
                seen)
  end)

  it("and written, from any depth", function()
    local function deeper(depth, f)
      if depth == 0 then return f() end
      local result = deeper(depth - 1, f)
      return result
    end
    local a, b, up, hidden = inside(1, function(frame)
      deeper(5, function()
        pcall(function() assert.is_true(frame:set("b", 99)) end)
        assert.is_true(frame:set("outer", 20))
        assert.is_true(frame:set("hidden", "third"))
        assert.is_false(frame:set("nowhere", 1))
      end)
    end)
    assert.same({ 1, 99, 20, "third" }, { a, b, up, hidden })
    outer = 10
  end)

  it("inside a coroutine; from another one it is refused", function()
    local got
    coroutine.wrap(function()
      inside(5, function(frame)
        got = { frame:get "b" }
        local ok, why = coroutine.wrap(function() return pcall(frame.get, frame, "b") end)()
        assert.is_false(ok)
        assert.matches("another coroutine", why)
      end)
    end)()
    assert.same({ true, 15 }, got)
  end)

  it("say where they are", function()
    local text
    inside(1, function(frame) text = frame:where() end)
    assert.matches("frame_spec%.lua:%d+, in function 'inside'\n", text)
    assert.matches("\n> *%d+ +use%(frames%.at%(1%)%)\n", text)
  end)
end)
