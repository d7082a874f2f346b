-- A policy that is small enough for plain Lua: the logits of a token are E h, with h = P[prompt] +
-- C[the token before]. Each logit is one sum in a fixed order, whatever the batch. A batch can
-- therefore affect only the operations after the logits.

local ffi = require "ffi"
local samebits = require "samebits"
local random = require "random"

local WIDTH = 8                                  -- of h
local BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8    -- Adam

local function floats(t) return ffi.cast("float *", t.ptr) end

-- Zeros [shape], aligned to 64 bytes. Conventional kernels sum logits in an order that depends on
-- their address; a fixed alignment makes the experiment repeatable.
local function aligned(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  local room = samebits.zeros { n + 16 }
  local skip = (64 - tonumber(ffi.cast("uintptr_t", room.ptr) % 64)) % 64 / 4
  return room:slice(0, skip, skip + n):view(shape)
end

local Policy = {}
Policy.__index = Policy

-- names of its weights, in the order in which they are drawn.
local NAMES = { "P", "C", "E" }

local function new(vocab, prompts, seed)
  local rows = { P = prompts, C = vocab, E = vocab }
  local self = setmetatable({ vocab = vocab, weights = {}, mean = {}, square = {}, grads = {},
                              updates = 0 }, Policy)
  local draw = random.new(seed)
  for _, name in ipairs(NAMES) do
    local shape = { rows[name], WIDTH }
    for _, kind in ipairs { "weights", "mean", "square", "grads" } do
      self[kind][name] = samebits.zeros(shape)
    end
    local w = floats(self.weights[name])
    for i = 0, rows[name] * WIDTH - 1 do w[i] = 0.3 * draw:normal() end
  end
  return self
end

local function hidden(self, h, prompt, before)
  local P, C = floats(self.weights.P) + prompt * WIDTH, floats(self.weights.C) + before * WIDTH
  for k = 0, WIDTH - 1 do h[k] = P[k] + C[k] end
end

-- Writes the logits for rows of { prompt, token before } to a tensor [.., V] with as many rows.
function Policy:logits(contexts, out)
  local h, E, to = ffi.new("double[?]", WIDTH), floats(self.weights.E), floats(out)
  for row, context in ipairs(contexts) do
    hidden(self, h, context[1], context[2])
    local logits = to + (row - 1) * self.vocab
    for v = 0, self.vocab - 1 do
      local sum, e = 0.0, E + v * WIDTH
      for k = 0, WIDTH - 1 do sum = sum + h[k] * e[k] end
      logits[v] = sum
    end
  end
  return out
end

-- Adds to the gradients of the weights, computed from the gradients of the logits of the same rows.
function Policy:backward(contexts, by_logits)
  local h, by_h = ffi.new("double[?]", WIDTH), ffi.new("double[?]", WIDTH)
  local E, dE, from = floats(self.weights.E), floats(self.grads.E), floats(by_logits)
  for row, context in ipairs(contexts) do
    hidden(self, h, context[1], context[2])
    local d = from + (row - 1) * self.vocab
    for k = 0, WIDTH - 1 do by_h[k] = 0 end
    for v = 0, self.vocab - 1 do
      local g, e, de = d[v], E + v * WIDTH, dE + v * WIDTH
      for k = 0, WIDTH - 1 do
        by_h[k] = by_h[k] + g * e[k]
        de[k] = de[k] + g * h[k]
      end
    end
    local dP = floats(self.grads.P) + context[1] * WIDTH
    local dC = floats(self.grads.C) + context[2] * WIDTH
    for k = 0, WIDTH - 1 do
      dP[k] = dP[k] + by_h[k]
      dC[k] = dC[k] + by_h[k]
    end
  end
end

-- Takes one step of Adam down the gradient, and sets the gradient to 0.
function Policy:update(rate)
  self.updates = self.updates + 1
  local correct1, correct2 = 1 - BETA1 ^ self.updates, 1 - BETA2 ^ self.updates
  for _, name in ipairs(NAMES) do
    local w, g = floats(self.weights[name]), floats(self.grads[name])
    local m, s = floats(self.mean[name]), floats(self.square[name])
    for i = 0, self.weights[name]:numel() - 1 do
      m[i] = BETA1 * m[i] + (1 - BETA1) * g[i]
      s[i] = BETA2 * s[i] + (1 - BETA2) * g[i] * g[i]
      w[i] = w[i] - rate * (m[i] / correct1) / (math.sqrt(s[i] / correct2) + EPSILON)
      g[i] = 0
    end
  end
end

-- The contents of a checkpoint, to which the trainer adds its own.
function Policy:state()
  local tensors = {}
  for _, kind in ipairs { "weights", "mean", "square" } do
    for _, name in ipairs(NAMES) do tensors[kind .. "." .. name] = self[kind][name] end
  end
  return tensors
end

function Policy:restore(tensors, updates)
  for _, kind in ipairs { "weights", "mean", "square" } do
    for _, name in ipairs(NAMES) do self[kind][name]:copy_(tensors[kind .. "." .. name]) end
  end
  self.updates = updates
end

return { new = new, aligned = aligned }
