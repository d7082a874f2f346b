--- Recognizes files of other programs by their first bytes, and advises how to use them.

local M = {}

--- The number of bytes that `advice` examines.
M.BYTES = 64

-- The first file inside a zip archive. Its name is 30 bytes after the archive's start.
local function first_inside(bytes)
  if bytes:sub(1, 4) ~= "PK\3\4" or #bytes < 30 then return nil end
  return bytes:sub(31, 30 + bytes:byte(27) + 256 * bytes:byte(28))
end

local NPZ = "a .npz archive of .npy files: save each array by numpy.save, or all together by " ..
            "safetensors.numpy.save_file"
local TORCH = "a PyTorch file: save its tensors by safetensors.torch.save_file"
local GGUF = "a GGUF file holds a model's weights: dump its logits as .npy or .safetensors"

--- Returns a sentence that says which kind of file this is and how to use it; nil if that is not
-- known.
-- @tparam string bytes its first `BYTES` bytes, or all of it
-- @tparam string path
function M.advice(bytes, path)
  local inside = first_inside(bytes)
  if bytes:sub(1, 2) == "PK" then
    if inside and inside:find "%.npy$" or path:find "%.npz$" then return NPZ end
    if inside and inside:find "/data%.pkl$" or path:find "%.pth?$" then return TORCH end
    return "a zip archive"
  end
  if bytes:find "^\128[\2-\5]" then
    return path:find "%.pth?$" and TORCH or "a pickle, which is never run: " ..
           "save arrays by numpy.save or safetensors.numpy.save_file"
  end
  if bytes:sub(1, 4) == "GGUF" then return GGUF end
end

return M
