-- Runs every check of build/release/samebits-spec as a spec of its own, with the check's output as
-- the message. SB_BUILD names another configuration (asan).
--
-- queue: early

local program = './build/' .. (os.getenv('SB_BUILD') or 'release') .. '/samebits-spec'

local function run(arguments)
  local pipe = assert(io.popen(program .. ' ' .. arguments .. ' 2>&1; echo "exit $?"'))
  local text = pipe:read('*a')
  pipe:close()
  local said, status = text:match('^(.-)exit (%d+)\n$')
  return said, tonumber(status)
end

describe('in C', function()
  local list = run('')
  local any = false
  for name, what in list:gmatch('([%w-]+)\t([^\n]+)\n') do
    any = true
    it(what .. ' (' .. name .. ')', function()
      local said, status = run(name)
      if status == 77 then return pending(said) end
      assert(status == 0, ('samebits-spec %s: %s(exit status %s)'):format(name, said, status))
    end)
  end

  it('has checks', function()
    assert(any, program .. ' listed none: ' .. list)
  end)
end)
