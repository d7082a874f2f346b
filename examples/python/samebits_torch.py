"""samebits for PyTorch: selected logprobs and policy losses as autograd functions, and sampling. It
uses ctypes, so there is nothing to build.

    from samebits_torch import selected_logprobs, sample, check
    ids, old = sample(logits, positions, streams, seed=1, temperature=0.7)
    logprobs = selected_logprobs(logits, ids, temperature=0.7)    # fp32, shaped like ids
    logprobs.sum().backward()
    check(logits.device)                                          # on a GPU: were all ids good?

    head = Head(weights)                         # the last layer: see fused_head.py
    loss, record, metrics = policy_loss(new, advantages, old=old, mask=mask, tokens=tokens)
    loss.backward()                                               # into new, and so into logits

logits are fp32, fp16 or bf16 [.., V] on the CPU or a CUDA device; ids are int32 or int64 [..]. An
id of -100 is ignored: its logprob and gradient are 0, and its logits are not read. On a GPU, the
call is queued in PyTorch's current stream and does not wait. A row with a bad id becomes NaN, and
check() raises an error.

The backward pass is the library's sb_logprob_backward if the library has it. Otherwise it uses
PyTorch's softmax, whose bits are not those of the contract.

SAMEBITS_LIB names the library; by default it is build/release/libsamebits.so of this checkout.
"""
import ctypes
import os

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = os.environ.get("SAMEBITS_LIB") or os.path.join(ROOT, "build", "release", "libsamebits.so")
DTYPES = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.int32: 4, torch.int64: 5}
IGNORE_INDEX = -100

lib = ctypes.CDLL(PATH)
lib.sb_last_error.restype = ctypes.c_char_p
lib.sb_last_error.argtypes = [ctypes.c_void_p]
lib.sb_open.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_void_p,
                        ctypes.c_char_p, ctypes.c_size_t]
lib.sb_logprob.argtypes = [ctypes.c_void_p] * 4
lib.sb_check.argtypes = [ctypes.c_void_p] * 2
lib.sb_sample.argtypes = [ctypes.c_void_p] * 5
HAS_BACKWARD = hasattr(lib, "sb_logprob_backward")
if HAS_BACKWARD:
    lib.sb_logprob_backward.argtypes = [ctypes.c_void_p] * 4
lib.sb_head_bytes.argtypes = [ctypes.c_void_p] * 3
lib.sb_head_create.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_uint64, ctypes.c_void_p]
lib.sb_head_update.argtypes = [ctypes.c_void_p] * 4
lib.sb_head_free.argtypes = [ctypes.c_void_p] * 2
lib.sb_policy_loss.argtypes = [ctypes.c_void_p] * 4
lib.sb_policy_merge.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64, ctypes.c_void_p]

u32, i32, i64, f32 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
f64 = ctypes.c_double
pointer = ctypes.c_void_p


class Struct(ctypes.Structure):
    """A struct of samebits.h; all of them begin with their size."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.size = ctypes.sizeof(self)


class Batch(Struct):
    _fields_ = [("size", u32), ("logits_dtype", i32), ("logits", pointer), ("batch", i64),
                ("time", i64), ("rows", i64), ("vocab", i64), ("row_stride", i64),
                ("batch_stride", i64), ("cu_seqlens", pointer), ("ids", pointer),
                ("mask", pointer), ("temperatures", pointer), ("row_list", pointer),
                ("row_count", i64), ("ignore_index", i64), ("cu_seqlens_dtype", i32),
                ("ids_dtype", i32), ("temperature", f32), ("shift", i32), ("kept", pointer),
                ("kept_stride", i64), ("kept_ids", pointer), ("kept_offsets", pointer),
                ("kept_count", i64), ("kept_ids_dtype", i32), ("kept_offsets_dtype", i32)]


class HiddenBatch(Batch):
    _fields_ = [("head", pointer), ("hidden", pointer), ("hidden_width", i64),
                ("hidden_row_stride", i64), ("hidden_batch_stride", i64), ("hidden_dtype", i32),
                ("hidden_reserved", i32)]


class Weights(Struct):
    _fields_ = [("size", u32), ("dtype", i32), ("weights", pointer), ("ids", i64),
                ("width", i64), ("row_stride", i64), ("first", i64), ("bias", pointer),
                ("scales", pointer), ("bias_dtype", i32), ("format", i32), ("scale", f32),
                ("softcap", f32), ("keep_bad", i32), ("norms", i32)]


class Out(Struct):
    _fields_ = [("size", u32), ("reserved", u32), ("token", pointer), ("lse", pointer),
                ("sequence", pointer), ("count", pointer), ("outside", pointer)]
    if HAS_BACKWARD:
        _fields_ += [("entropy", pointer), ("saved", pointer)]


class Launch(Struct):
    _fields_ = [("size", u32), ("split", i32), ("threads", i32), ("check", i32),
                ("stream", pointer), ("workspace", pointer), ("workspace_size", ctypes.c_uint64),
                ("needed", pointer), ("cluster", i32), ("timeout", i32), ("table", i32),
                ("one_read", i32)]


class Gradient(Struct):
    _fields_ = [("size", u32), ("dtype", i32), ("grad", pointer), ("width", i64),
                ("row_stride", i64), ("batch_stride", i64), ("saved", pointer), ("token", pointer),
                ("entropy", pointer), ("first", i64), ("held", i64)]


class Policy(Struct):
    _fields_ = ([("size", u32), ("cu_seqlens_dtype", i32)] +
                [(name, pointer) for name in ("now", "old", "ref", "rollout", "entropy",
                                              "advantages", "mask", "cu_seqlens")] +
                [(name, i64) for name in ("batch", "time", "rows", "tokens", "sequences")] +
                [(name, f64) for name in ("constant", "eps_low", "eps_high")] +
                [(name, i32) for name in ("loss", "norm", "kl", "weight", "level", "per_token")] +
                [(name, f32) for name in ("dual", "beta", "eta", "w_low", "w_high", "upstream")])


class PolicyOut(Struct):
    _fields_ = [("size", u32), ("reserved", u32), ("loss", pointer), ("sequence", pointer),
                ("token", pointer), ("entropy", pointer), ("record", pointer),
                ("metrics", pointer)]


class Sampling(Struct):
    _fields_ = [("size", u32), ("top_k", i32), ("top_p", f32), ("min_p", f32),
                ("top_ks", pointer), ("top_ps", pointer), ("min_ps", pointer),
                ("seed", ctypes.c_uint64), ("stream", ctypes.c_uint64),
                ("position", ctypes.c_uint64), ("seeds", pointer), ("streams", pointer),
                ("positions", pointer), ("u", pointer), ("bits", pointer)]


class SampleOut(Struct):
    _fields_ = [("size", u32), ("reserved", u32), ("token", pointer), ("logprob", pointer),
                ("kept_logprob", pointer), ("count", pointer), ("kept", pointer)]


SAVED_BYTES = 32  # the size of an sb_saved_row
RECORD_BYTES = 784  # that of an sb_policy_record
METRICS = ("loss", "pg", "kl", "entropy", "ratio", "k1", "k3", "weight", "high", "low", "dual",
           "cut", "drift", "outside", "ratio_min", "ratio_max")
LOSSES = {"clip": 1, "gspo": 2, "cispo": 3, "reinforce": 4}
NORMS = {"token-mean": 1, "sequence-mean": 2, "sequence-sum": 3, "constant": 4}
KLS = {"k1": 1, "k2": 2, "k3": 3, "k1+": 4, "k3+": 5}

FORMATS = {"h24w16": 1, "h24w24": 2}
HEAD_BOUNDARY = 256  # of a head's memory

contexts = {}


def context(device):
    """The context of a device, opened once."""
    index = (torch.cuda.current_device() if device.index is None else device.index) \
        if device.type == "cuda" else None
    name = "cpu" if index is None else "cuda:%d" % index
    if name not in contexts:
        handle, why = pointer(), ctypes.create_string_buffer(256)
        if lib.sb_open(ctypes.byref(handle), lib.sb_abi(), name.encode(), None, why, 256) != 0:
            raise RuntimeError("samebits: %s" % why.value.decode())
        contexts[name] = handle
    return contexts[name]


def must(status, handle):
    if status != 0:
        raise RuntimeError("samebits: %s" % lib.sb_last_error(handle).decode())


def stream_of(device):
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None


def check(device):
    """Waits for the current stream, and raises an error if one of its calls met a bad id."""
    must(lib.sb_check(context(device), stream_of(device)), context(device))


def batch_of(logits, ids, temperature):
    """A batch of logits [N, V] and ids [N]. Treats all rows as one sequence, since only tokens are
    asked for."""
    return Batch(logits=logits.data_ptr(), logits_dtype=DTYPES[logits.dtype], batch=1,
                 time=logits.shape[0], vocab=logits.shape[1], row_stride=logits.stride(0),
                 ids=ids.data_ptr(), ids_dtype=DTYPES[ids.dtype], ignore_index=IGNORE_INDEX,
                 temperature=temperature)


class Head:
    """The exact head of the ids first .. first + len(weights) - 1 of vocab ones, in PyTorch's
    memory; first is a multiple of 16. It has a copy of the weights: update() takes others in, such
    as those after a step. Free it when nothing uses it any more. On a GPU, a row of weights with
    NaN or infinity makes logprobs NaN, and check() raises an error."""

    def __init__(self, weights, first=0, vocab=None, format="h24w16"):
        self.device, self.first, self.held = weights.device, first, len(weights)
        self.vocab, self.width, self.format = vocab or len(weights), weights.shape[1], format
        self.handle, size, ctx = pointer(), ctypes.c_uint64(), context(weights.device)
        of, launch = self.described(weights), Launch(stream=stream_of(self.device))
        must(lib.sb_head_bytes(ctx, ctypes.byref(size), ctypes.byref(of)), ctx)
        self.memory = torch.empty(size.value + HEAD_BOUNDARY, dtype=torch.uint8,
                                  device=self.device)
        at = -self.memory.data_ptr() % HEAD_BOUNDARY + self.memory.data_ptr()
        must(lib.sb_head_create(ctx, ctypes.byref(self.handle), ctypes.byref(of), at, size,
                                ctypes.byref(launch)), ctx)

    def described(self, weights):
        return Weights(dtype=DTYPES[weights.dtype], weights=weights.data_ptr(), ids=len(weights),
                       width=weights.shape[1], row_stride=weights.stride(0), first=self.first,
                       bias_dtype=DTYPES[torch.float32], format=FORMATS[self.format], scale=1.0)

    def update(self, weights):
        of, launch = self.described(weights), Launch(stream=stream_of(self.device))
        must(lib.sb_head_update(context(self.device), self.handle, ctypes.byref(of),
                                ctypes.byref(launch)), context(self.device))

    def free(self):
        must(lib.sb_head_free(context(self.device), self.handle), context(self.device))
        self.handle = self.memory = None

    def batch(self, hidden, ids, temperature):
        """A batch of hidden states [N, D] and ids [N], as batch_of."""
        return HiddenBatch(logits_dtype=DTYPES[torch.float32], batch=1, time=len(ids),
                           vocab=self.vocab, ids=ids.data_ptr(), ids_dtype=DTYPES[ids.dtype],
                           ignore_index=IGNORE_INDEX, temperature=temperature, head=self.handle,
                           hidden=hidden.data_ptr(), hidden_dtype=DTYPES[hidden.dtype],
                           hidden_width=self.width, hidden_row_stride=hidden.stride(0))


def torch_gradient(logits, ids, temperature, upstream):
    """d logprob / d logit_i = ((i is the id) - p_i) / temperature."""
    ignored = ids == IGNORE_INDEX
    p = torch.softmax(logits.float() / temperature, dim=-1)
    grad = p.mul_(-upstream.unsqueeze(-1) / temperature)
    safe = ids.long().masked_fill(ignored, 0).unsqueeze(-1)
    grad.scatter_add_(-1, safe, (upstream / temperature).unsqueeze(-1))
    return grad.masked_fill_(ignored.unsqueeze(-1), 0).to(logits.dtype)


class SelectedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, ids, temperature):
        rows = logits.shape[0]
        token = torch.empty(rows, dtype=torch.float32, device=logits.device)
        saved = torch.empty(rows * SAVED_BYTES if HAS_BACKWARD else 0, dtype=torch.uint8,
                            device=logits.device)
        out = Out(token=token.data_ptr())
        if HAS_BACKWARD:
            out.saved = saved.data_ptr()
        handle, batch = context(logits.device), batch_of(logits, ids, temperature)
        launch = Launch(stream=stream_of(logits.device))
        must(lib.sb_logprob(handle, ctypes.byref(out), ctypes.byref(batch), ctypes.byref(launch)),
             handle)
        ctx.save_for_backward(logits, ids, saved)
        ctx.temperature = temperature
        return token

    @staticmethod
    def backward(ctx, upstream):
        logits, ids, saved = ctx.saved_tensors
        upstream = upstream.float().contiguous()
        if not HAS_BACKWARD:
            return torch_gradient(logits, ids, ctx.temperature, upstream), None, None
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        gradient = Gradient(dtype=DTYPES[grad.dtype], grad=grad.data_ptr(), saved=saved.data_ptr(),
                            token=upstream.data_ptr())
        handle, batch = context(logits.device), batch_of(logits, ids, ctx.temperature)
        launch = Launch(stream=stream_of(logits.device))
        must(lib.sb_logprob_backward(handle, ctypes.byref(gradient), ctypes.byref(batch),
                                     ctypes.byref(launch)), handle)
        return grad, None, None


def selected_logprobs(logits, ids, temperature=1.0):
    """ln p(id) of each row, with the library's bits; differentiable with respect to the logits."""
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError("logits are %s: fp32, fp16 or bf16 are scored" % logits.dtype)
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError("ids are %s, not int32 or int64" % ids.dtype)
    if ids.shape != logits.shape[:-1] or ids.device != logits.device:
        raise ValueError("logits %s on %s do not fit ids %s on %s" % (
            tuple(logits.shape), logits.device, tuple(ids.shape), ids.device))
    vocab = logits.shape[-1]
    flat = logits.reshape(-1, vocab)
    if flat.stride(-1) != 1 or flat.stride(0) < vocab:
        flat = flat.contiguous()
    token = SelectedLogprobs.apply(flat, ids.reshape(-1).contiguous(), float(temperature))
    return token.reshape(ids.shape)


class PolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, now, policy, keep):
        loss, metrics = now.new_empty(1), now.new_empty(len(METRICS))
        record = torch.empty(RECORD_BYTES, dtype=torch.uint8, device=now.device)
        by_now = torch.empty_like(now)
        out = PolicyOut(loss=loss.data_ptr(), token=by_now.data_ptr(), record=record.data_ptr(),
                        metrics=metrics.data_ptr())
        policy.now = now.data_ptr()
        launch, handle = Launch(stream=stream_of(now.device)), context(now.device)
        must(lib.sb_policy_loss(handle, ctypes.byref(out), ctypes.byref(policy),
                                ctypes.byref(launch)), handle)
        ctx.save_for_backward(by_now)
        ctx.mark_non_differentiable(record, metrics)
        del keep  # the tensors of policy have lived until here
        return loss[0], record, metrics

    @staticmethod
    def backward(ctx, upstream, _record, _metrics):
        by_now, = ctx.saved_tensors
        return by_now * upstream, None, None


def policy_loss(now, advantages, old=None, ref=None, rollout=None, mask=None, tokens=0,
                sequences=0, loss="clip", norm="token-mean", eps_low=0.2, eps_high=0.2, dual=0.0,
                kl="k3", beta=0.0, constant=0.0):
    """The policy loss of token logprobs now [B, T], its record and its metrics (METRICS names
    them). advantages are [B], or shaped as now; tokens and sequences are the active ones of the
    whole step, if this is a part of it. Differentiable with respect to now."""
    def given(t, dtype=torch.float32):
        return None if t is None else t.detach().to(dtype).contiguous()
    now = now.float().contiguous()
    keep = [given(t) for t in (advantages, old, ref, rollout)] + [given(mask, torch.uint8)]
    for t in keep[1:]:
        if t is not None and t.shape != now.shape:
            raise ValueError("%s does not fit now %s" % (tuple(t.shape), tuple(now.shape)))
    policy = Policy(cu_seqlens_dtype=4, batch=now.shape[0], time=now.shape[1], tokens=tokens,
                    sequences=sequences, constant=constant, eps_low=eps_low, eps_high=eps_high,
                    loss=LOSSES[loss], norm=NORMS[norm], kl=KLS[kl], dual=dual, beta=beta,
                    per_token=int(keep[0].dim() == 2), upstream=1.0)
    for name, t in zip(("advantages", "old", "ref", "rollout", "mask"), keep):
        if t is not None:
            setattr(policy, name, t.data_ptr())
    return PolicyLoss.apply(now, policy, keep)


def merged_loss(records, tokens=0, norm="token-mean"):
    """The loss and the metrics of several records together, as of one call for all tokens."""
    all_records = torch.stack(records)
    loss = torch.empty(1, device=all_records.device)
    metrics = torch.empty(len(METRICS), device=all_records.device)
    out, policy = PolicyOut(loss=loss.data_ptr(), metrics=metrics.data_ptr()), Policy(
        norm=NORMS[norm], tokens=tokens)
    launch, handle = Launch(stream=stream_of(loss.device)), context(loss.device)
    must(lib.sb_policy_merge(handle, ctypes.byref(out), ctypes.byref(policy),
                             all_records.data_ptr(), len(records), ctypes.byref(launch)), handle)
    return loss[0], dict(zip(METRICS, metrics.tolist()))


def sample(logits, positions, streams, seed=0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Draws an id from each row of logits [N, V]. Returns the ids, int32 [N], and their logprobs
    under the model. positions and streams, int64 [N], say which token of which sequence a row is:
    with the seed, they alone determine the random bits."""
    rows, vocab = logits.shape
    device = logits.device
    ids = torch.empty(rows, dtype=torch.int32, device=device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=device)
    positions, streams = positions.to(device).contiguous(), streams.to(device).contiguous()
    batch = Batch(logits=logits.data_ptr(), logits_dtype=DTYPES[logits.dtype], batch=1, time=rows,
                  vocab=vocab, row_stride=logits.stride(0), ids_dtype=DTYPES[torch.int32],
                  ignore_index=IGNORE_INDEX, temperature=temperature)
    how = Sampling(top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, streams=streams.data_ptr(),
                   positions=positions.data_ptr())
    out = SampleOut(token=ids.data_ptr(), logprob=logprobs.data_ptr())
    launch, handle = Launch(stream=stream_of(device)), context(device)
    must(lib.sb_sample(handle, ctypes.byref(out), ctypes.byref(batch), ctypes.byref(how),
                       ctypes.byref(launch)), handle)
    return ids, logprobs
