-- Names the data that the specs score: logits that were dumped once, with ids and mask. Dump your
-- own from a trainer or a rollout engine (safetensors.torch.save_file { logits, ids, mask }) and
-- name that file here.

local samebits = require "samebits"

local DUMP = "../../spec/vectors/smollm2.safetensors"

local data = assert(samebits.load(DUMP))

return { logits = data.logits, ids = data.ids, mask = data.mask, temperature = 0.8 }
