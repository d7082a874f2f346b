-- rank.lua RANK RANKS FOLDER PLAY - one rank of an exchange, for exchange_spec.lua: it sums its
-- shard on the GPU, exchanges records, finishes, and prints the bits, or what was refused.
--
-- FOLDER: the folder where rank 0 leaves the id. PLAY: "check"; "entropy", with records that have
-- moments; "stream", without a check, in a stream and a workspace of its own; "rows", rank 1 brings
-- one row fewer; "temperature", rank 1 has a different one; "little", the workspace is too small;
-- "timeout", a rank waits for 50 ms; "timeout unchecked", the same without a check. "gather" and
-- "reduce": instead of records, rank 1 brings one integer fewer; "lost": an all-reduce waits for
-- 50 ms.

package.path = "./lua/?.lua;./?.lua;" .. package.path

local samebits = require "samebits"
local example = require "spec.exchange.example"
local meet = require "spec.exchange.meet"
local shards = require "spec.support.shards"

local rank, ranks, folder, play = tonumber(arg[1]), tonumber(arg[2]), arg[3], arg[4]
local ctx = assert(samebits.open "cuda")

local function run(comm)
  local spec = example.spec()
  local cuts = example.cuts(ranks)
  local mine = shards.shard(spec, cuts[rank + 1], cuts[rank + 2])
  local odd = rank == 1
  if play == "temperature" and odd then mine.temperature = 2 end
  if play == "rows" and odd then
    table.remove(mine.ids)
    mine.logits = mine.logits:slice(0, 0, #mine.ids)
  end
  local batch = assert(samebits.batch(mine):to(ctx.device))
  local opts = {}
  local moments = play == "entropy"
  if play == "stream" then opts = { check = false, stream = assert(ctx:stream()) } end

  if play == "timeout unchecked" then opts = { check = false } end
  if play == "little" then opts.workspace = assert(samebits.zeros({ 256 }, "uint8", ctx.device)) end

  local records
  for _ = 1, play == "stream" and 3 or 1 do
    opts.entropy = moments or nil
    records = assert(ctx:partial(batch, opts))
    opts.entropy = nil
    if play == "stream" and not opts.workspace then
      local bytes = assert(ctx:exchange_workspace_size(records, comm))
      opts.workspace = assert(samebits.zeros({ bytes }, "uint8", ctx.device))
    end
    opts.timeout = play:find "^timeout" and 0.05 or nil
    local given, why = ctx:exchange(records, comm, opts)
    opts.timeout = nil
    assert(given == records, why)
  end
  opts.workspace, opts.outputs = nil, example.outputs(moments)
  local out = assert(ctx:finish(records, batch, opts))
  if opts.stream then
    assert(opts.stream:wait())
    assert(ctx:check(opts.stream))
  end
  return example.text(records, out)
end

-- Integers instead of records.
local function run_integers(comm)
  local values = assert(samebits.zeros({ rank == 1 and 6 or 7 }, "int64", ctx.device))
  local opts = { timeout = play == "lost" and 0.05 or nil }
  local got, why
  if play == "gather" then got, why = ctx:all_gather(values, comm, opts)
  else got, why = ctx:all_reduce(values, "add", comm, opts) end
  assert(got, why)
end

local integers = play == "gather" or play == "reduce" or play == "lost"
local comm = meet.communicator(ctx, rank, ranks, folder)
assert(comm.rank == rank and comm.ranks == ranks)
local ok, said = pcall(integers and run_integers or run, comm)
print(ok and said or "refused: " .. tostring(said))
assert((play:find "^timeout" or play == "lost") and comm:abort() or comm:close())
