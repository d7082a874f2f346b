--- How ranks that are processes of one machine meet: rank 0 leaves the id of their communicator in
-- a file.

local M = {}

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

--- The communicator of rank `rank` of `ranks`. folder: one that all ranks see, with no file "id" in
-- it. Waits for a minute.
function M.communicator(ctx, rank, ranks, folder)
  local path = folder .. "/id"
  if rank == 0 then
    local file = assert(io.open(path .. ".new", "wb"))
    file:write(assert(ctx:comm_id()))
    file:close()
    assert(os.rename(path .. ".new", path)) -- whole when it is there
  end
  for _ = 1, 600 do
    local id = read(path)
    if id then return assert(ctx:communicator { id = id, ranks = ranks, rank = rank }) end
    os.execute "sleep 0.1"
  end
  error "rank 0 left no id"
end

return M
