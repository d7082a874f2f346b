-- The members of the library's structs and the names of its functions, read from the declarations.

local ffi = require "ffi"
local declared = require "samebits.repl.declared"
local lib = require "samebits.lib"

describe("the declarations", function()
  it("list a struct's members in their order", function()
    assert.same({ "size", "split", "threads", "check", "stream", "workspace", "workspace_size",
                  "needed", "cluster", "timeout", "table", "one_read" },
                declared.members(ffi.new "sb_launch"))
  end)

  it("list the same members of a pointer or a reference to a struct", function()
    local list = ffi.new("sb_launch[2]")
    local want = declared.members(ffi.new "sb_launch")
    assert.same(want, declared.members(list + 1))
    assert.same(want, declared.members(list[0]))
  end)

  it("name members that the structs have, all of them", function()
    for _, name in ipairs { "sb_batch", "sb_logprob_out", "sb_launch", "sb_saved_row" } do
      local value, past = ffi.new(name), 0
      local members = declared.members(value)
      assert.is_true(#members > 3, name)
      for _, member in ipairs(members) do
        assert.has_no.errors(function() return value[member] end)
        local at = ffi.offsetof(name, member)
        assert.is_true(at >= past, name .. "." .. member)
        past = at
      end
    end
  end)

  it("have no members for other cdata", function()
    assert.is_nil(declared.members(ffi.new "int64_t"))
    assert.is_nil(declared.members(ffi.new "char[4]"))
    ffi.cdef "struct samebits_spec_undeclared { int member; };"
    assert.is_nil(declared.members(ffi.new "struct samebits_spec_undeclared"))
  end)

  it("list functions, each of which the library exports, once", function()
    local seen = {}
    for _, name in ipairs(declared.functions()) do
      assert.is_nil(seen[name], name)
      seen[name] = true
      assert.has_no.errors(function() return lib.C[name] end)
    end
    for _, name in ipairs { "sb_open", "sb_close", "sb_logprob", "sb_status_name" } do
      assert.is_true(seen[name], name)
    end
  end)
end)
