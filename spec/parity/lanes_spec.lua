-- Specs that need a GPU, on the driver whose GPU is the CPU (spec/parity/lanes).
--
-- queue: early

local lanes = require 'spec.support.lanes'
local shell = require 'spec.support.shell'

describe('the kernels as HIP on the CPU', function()
  -- The driver also keeps what is put into a graph, and lets nothing wait or allocate meanwhile.
  it('report, refuse and are captured as the specs of a GPU say', function()
    local missing = lanes.missing()
    if missing then return pending(missing) end
    local commands = {}
    for _, each in ipairs {
      { 32, 'spec/cuda/calls_spec.lua spec/cuda/shards_spec.lua spec/cuda/devices_spec.lua ' ..
      'spec/cuda/reports_spec.lua spec/cuda/arrays_spec.lua spec/cuda/capture_spec.lua ' ..
      'spec/cuda/groups_spec.lua spec/cuda/hold_spec.lua spec/api/empty_spec.lua ' ..
      'spec/lua/op/shard_moments_spec.lua spec/cuda/policy_spec.lua spec/cuda/head_spec.lua' },
      { 32, 'spec/cuda/table_spec.lua' },
      { 32, 'spec/cuda/sample_spec.lua --filter="more parts" --filter="or nearly"' },
      { 64, 'spec/cuda/calls_spec.lua spec/cuda/policy_spec.lua spec/numerics/sample_spec.lua' },
    } do
      -- each says what it has to say at once, at its end
      commands[#commands + 1] = shell.line('said=$(LD_LIBRARY_PATH=%s' ..
        '${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} SB_REQUIRE=cuda,cuda:1 SB_JUNIT= ' ..
        'luajit "$(command -v busted)" -o TAP ', lanes.folder(each[1])) .. each[2] ..
        ' 2>&1); status=$?; echo "$said"; exit $status'
    end
    local said, status = shell.run_all(commands)
    assert.equal(0, status, said)
    local passed = 0
    for count in said:gmatch '(%d+) passed, 0 failed, %d+ skipped' do passed = passed + count end
    assert.is_true(passed >= 500, said)
    for why in said:gmatch '# SKIP ([^\n]*)' do -- only what this CPU cannot be compared with
      assert.is_truthy(why:find('lacks the isa', 1, true), why)
    end
  end)

  -- With streams that run late the driver ends a process that frees what work in a stream uses.
  local function late(command)
    return shell.run('LANES_LATE=1 LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ' ..
                     'SB_REQUIRE=cuda SB_JUNIT= ' .. command, lanes.folder(32))
  end

  it('hold what calls use until they are done', function()
    local missing = lanes.missing()
    if missing then return pending(missing) end
    local said, status = late('luajit "$(command -v busted)" -o TAP spec/cuda/hold_spec.lua ' ..
                              'spec/cuda/capture_spec.lua spec/cuda/reports_spec.lua ' ..
                              'spec/lua/device_spec.lua')
    assert.equal(0, status, said)
    assert.is_truthy(said:find(' passed, 0 failed, 0 skipped', 1, true), said)
  end)

  it('hold it at the end of a Lua state, too', function()
    local missing = lanes.missing()
    if missing then return pending(missing) end
    for seed = 1, 8 do
      local said, status = late(('luajit spec/parity/lanes/closing.lua %d'):format(seed))
      assert.equal(0, status, ('seed %d: %s'):format(seed, said))
    end
  end)
end)
