"""The C API for Python: the structs of src/samebits.h, and a Context that uses them.

    from samebits_ctypes import Context
    ctx = Context("cuda")
    ctx.logprob(logits=tensor, ids=ids, token=token, stream=stream)

Arguments are PyTorch tensors or any other objects with data_ptr(). Every call keeps the memory that
it points to alive; the caller must keep a call that is captured into a CUDA graph.
"""
import ctypes
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
F32, F16, BF16, I32, I64 = 1, 2, 3, 4, 5
SUMS, MOMENTS = 1, 2
DEVICE, PINNED = 1, 2
DTYPES = {"float32": F32, "float16": F16, "bfloat16": BF16, "int32": I32, "int64": I64}


class OpenOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("threads", ctypes.c_int32), ("isa", ctypes.c_char_p)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("logits_dtype", ctypes.c_int32), ("logits", ctypes.c_void_p),
        ("batch", ctypes.c_int64), ("time", ctypes.c_int64), ("rows", ctypes.c_int64),
        ("vocab", ctypes.c_int64), ("row_stride", ctypes.c_int64), ("batch_stride", ctypes.c_int64),
        ("cu_seqlens", ctypes.c_void_p), ("ids", ctypes.c_void_p), ("mask", ctypes.c_void_p),
        ("temperatures", ctypes.c_void_p), ("row_list", ctypes.c_void_p),
        ("row_count", ctypes.c_int64), ("ignore_index", ctypes.c_int64),
        ("cu_seqlens_dtype", ctypes.c_int32), ("ids_dtype", ctypes.c_int32),
        ("temperature", ctypes.c_float), ("shift", ctypes.c_int32), ("kept", ctypes.c_void_p),
        ("kept_stride", ctypes.c_int64), ("kept_ids", ctypes.c_void_p),
        ("kept_offsets", ctypes.c_void_p), ("kept_count", ctypes.c_int64),
        ("kept_ids_dtype", ctypes.c_int32), ("kept_offsets_dtype", ctypes.c_int32),
        ("head", ctypes.c_void_p), ("hidden", ctypes.c_void_p), ("hidden_width", ctypes.c_int64),
        ("hidden_row_stride", ctypes.c_int64), ("hidden_batch_stride", ctypes.c_int64),
        ("hidden_dtype", ctypes.c_int32), ("hidden_reserved", ctypes.c_int32)]


class Weights(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("dtype", ctypes.c_int32), ("weights", ctypes.c_void_p),
        ("ids", ctypes.c_int64), ("width", ctypes.c_int64), ("row_stride", ctypes.c_int64),
        ("first", ctypes.c_int64), ("bias", ctypes.c_void_p), ("scales", ctypes.c_void_p),
        ("bias_dtype", ctypes.c_int32), ("format", ctypes.c_int32), ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float), ("keep_bad", ctypes.c_int32), ("norms", ctypes.c_int32)]


class Out(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("token", ctypes.c_void_p),
        ("lse", ctypes.c_void_p), ("sequence", ctypes.c_void_p), ("count", ctypes.c_void_p),
        ("outside", ctypes.c_void_p), ("entropy", ctypes.c_void_p), ("saved", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p)]


class Gradient(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("dtype", ctypes.c_int32), ("grad", ctypes.c_void_p),
        ("width", ctypes.c_int64), ("row_stride", ctypes.c_int64), ("batch_stride", ctypes.c_int64),
        ("saved", ctypes.c_void_p), ("token", ctypes.c_void_p), ("entropy", ctypes.c_void_p),
        ("first", ctypes.c_int64), ("held", ctypes.c_int64), ("policy", ctypes.c_void_p),
        ("policy_out", ctypes.c_void_p)]


class First(ctypes.Structure):
    """sb_ids_out and sb_topk_out: three pointers after the head."""
    _fields_ = [
        ("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p), ("lse", ctypes.c_void_p)]


class KlOut(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("token", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p)]


class Records(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("kind", ctypes.c_int32), ("states", ctypes.c_void_p),
        ("targets", ctypes.c_void_p)]


class LogitsOut(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("dtype", ctypes.c_int32), ("logits", ctypes.c_void_p),
        ("row_stride", ctypes.c_int64), ("batch_stride", ctypes.c_int64), ("first", ctypes.c_int64),
        ("held", ctypes.c_int64)]


class Sampling(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("top_k", ctypes.c_int32), ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float), ("top_ks", ctypes.c_void_p), ("top_ps", ctypes.c_void_p),
        ("min_ps", ctypes.c_void_p), ("seed", ctypes.c_uint64), ("stream", ctypes.c_uint64),
        ("position", ctypes.c_uint64), ("seeds", ctypes.c_void_p), ("streams", ctypes.c_void_p),
        ("positions", ctypes.c_void_p), ("u", ctypes.c_void_p), ("bits", ctypes.c_void_p)]


class SampleOut(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("token", ctypes.c_void_p),
        ("logprob", ctypes.c_void_p), ("kept_logprob", ctypes.c_void_p),
        ("count", ctypes.c_void_p), ("kept", ctypes.c_void_p)]


class Policy(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("cu_seqlens_dtype", ctypes.c_int32)] + [
        (name, ctypes.c_void_p) for name in ("now", "old", "ref", "rollout", "entropy",
                                             "advantages", "mask", "cu_seqlens")] + [
        (name, ctypes.c_int64) for name in ("batch", "time", "rows", "tokens", "sequences")] + [
        (name, ctypes.c_double) for name in ("constant", "eps_low", "eps_high")] + [
        (name, ctypes.c_int32) for name in ("loss", "norm", "kl", "weight", "level",
                                            "per_token")] + [
        (name, ctypes.c_float) for name in ("dual", "beta", "eta", "w_low", "w_high", "upstream")]


class PolicyOut(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("loss", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p), ("token", ctypes.c_void_p), ("entropy", ctypes.c_void_p),
        ("record", ctypes.c_void_p), ("metrics", ctypes.c_void_p)]


class Launch(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("split", ctypes.c_int32), ("threads", ctypes.c_int32),
        ("check", ctypes.c_int32), ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
        ("workspace_size", ctypes.c_uint64), ("needed", ctypes.c_void_p),
        ("cluster", ctypes.c_int32), ("timeout", ctypes.c_int32),
        ("table", ctypes.c_int32), ("one_read", ctypes.c_int32)]


def _load():
    path = os.environ.get("SAMEBITS_LIB",
                          os.path.join(ROOT, "build", "release", "libsamebits.so"))
    loaded = ctypes.CDLL(path)
    pointer, u64, i32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32
    loaded.sb_version.restype = ctypes.c_char_p
    for text in (loaded.sb_last_error, loaded.sb_context_isa, loaded.sb_last_plan):
        text.restype, text.argtypes = ctypes.c_char_p, [pointer]
    loaded.sb_close.argtypes, loaded.sb_close.restype = [pointer], None
    loaded.sb_logprob.argtypes = [pointer] * 4
    loaded.sb_logprob_backward.argtypes = [pointer] * 4
    loaded.sb_logprob_ids.argtypes = loaded.sb_topk.argtypes = [pointer] * 3 + [ctypes.c_int64,
                                                                               pointer]
    loaded.sb_kl.argtypes = loaded.sb_sample.argtypes = [pointer] * 5
    loaded.sb_logits.argtypes = [pointer] * 4
    loaded.sb_partial.argtypes = [pointer] * 3 + [ctypes.c_int64] * 2 + [pointer]
    loaded.sb_policy_loss.argtypes = [pointer] * 4
    loaded.sb_policy_merge.argtypes = [pointer] * 4 + [ctypes.c_int64, pointer]
    loaded.sb_head_bytes.argtypes = [pointer] * 3
    loaded.sb_head_create.argtypes = [pointer] * 4 + [u64, pointer]
    loaded.sb_head_update.argtypes = [pointer] * 4
    loaded.sb_head_free.argtypes = [pointer] * 2
    loaded.sb_check.argtypes = loaded.sb_stream_wait.argtypes = [pointer] * 2
    loaded.sb_stream_create.argtypes = loaded.sb_stream_destroy.argtypes = [pointer] * 2
    loaded.sb_memory_alloc.argtypes = [pointer, pointer, u64, i32]
    loaded.sb_memory_free.argtypes = [pointer, pointer, i32]
    loaded.sb_memory_copy.argtypes = [pointer, pointer, pointer, u64, pointer]
    return loaded


lib = _load()


class Unavailable(RuntimeError):
    """Raised if a backend cannot be opened here; the message says why."""


def _address(array):
    return None if array is None else array.data_ptr()


def _dtype(array):
    return DTYPES[str(array.dtype).rsplit(".", 1)[-1]]


def _gradient(grad, saved, token, entropy):
    return Gradient(size=ctypes.sizeof(Gradient), dtype=_dtype(grad), grad=_address(grad),
                    saved=_address(saved), token=_address(token), entropy=_address(entropy))


class Call:
    """One sb_logprob with its structs filled in. It can be called, with a stream, any number of
    times.

    backward, ids, topk and kl make other calls with the same batch and launch."""

    def __init__(self, ctx, batch, out, launch, keep):
        self.ctx, self.batch, self.out, self.launch, self.keep = ctx, batch, out, launch, keep
        self.pointers = [ctypes.addressof(s) for s in (out, batch, launch)]

    def workspace_size(self):
        return self.needed(self)

    def use_workspace(self, array, size):
        self.launch.workspace, self.launch.workspace_size = _address(array), size
        self.keep.append(array)

    def keep_bits(self, words):
        """Each row keeps the ids whose bits are set in its row of words."""
        self.batch.kept, self.batch.kept_stride = _address(words), words.shape[1]
        self.keep.append(words)

    def keep_lists(self, ids, offsets):
        """Row r keeps ids[offsets[r]] .. ids[offsets[r + 1] - 1], which rise."""
        self.batch.kept_ids, self.batch.kept_offsets = _address(ids), _address(offsets)
        self.batch.kept_count = len(ids)
        self.batch.kept_ids_dtype, self.batch.kept_offsets_dtype = _dtype(ids), _dtype(offsets)
        self.keep += [ids, offsets]

    def __call__(self, stream=None):
        self.launch.stream = stream
        self.ctx.must(lib.sb_logprob(self.ctx.handle, *self.pointers))

    def use_gradient(self, grad, token=None, entropy=None, policy=None):
        """Lets the call compute the gradient as well, from the derivatives of the loss; or that of
        a PolicyCall without now, whose outputs it writes."""
        gradient = _gradient(grad, None, token, entropy)
        if policy:
            gradient.policy_out, gradient.policy = policy.pointers[:2]
        self.out.gradient = ctypes.addressof(gradient)
        self.keep += [gradient, grad, token, entropy, policy]

    def backward(self, grad, saved, token=None, entropy=None):
        """Returns a function of a stream that computes the gradient, from the tensors of an
        sb_gradient."""
        gradient = _gradient(grad, saved, token, entropy)
        return self._other(lib.sb_logprob_backward, gradient, [grad, saved, token, entropy])

    def ids(self, k, logprob, rank=None):
        out = First(size=ctypes.sizeof(First), a=_address(logprob), b=_address(rank))
        return self._other(lib.sb_logprob_ids, out, [logprob, rank], k)

    def topk(self, k, ids, logprob):
        out = First(size=ctypes.sizeof(First), a=_address(ids), b=_address(logprob))
        return self._other(lib.sb_topk, out, [ids, logprob], k)

    def kl(self, q, token, sequence=None):
        """The divergence of this call's batch from that of q, another Call."""
        out = KlOut(size=ctypes.sizeof(KlOut), token=_address(token), sequence=_address(sequence))
        return self._other(lib.sb_kl, out, [q, token, sequence], ctypes.addressof(q.batch))

    def logits(self, to):
        """The logits of a batch of hidden states, into a tensor [N, V]."""
        out = LogitsOut(size=ctypes.sizeof(LogitsOut), dtype=_dtype(to), logits=_address(to))
        return self._other(lib.sb_logits, out, [to])

    def partial(self, states, targets, kind=SUMS, first=0, held=0):
        """The records of a shard, by default of all ids, into two tensors of bytes."""
        to = Records(size=ctypes.sizeof(Records), kind=kind, states=_address(states),
                     targets=_address(targets))
        return self._other(lib.sb_partial, to, [states, targets], first, held or self.batch.vocab)

    def sample(self, positions, token, logprob=None, kept_logprob=None, count=None, kept=None,
               seed=0, top_k=0, top_p=1.0, min_p=0.0):
        """Draws of tokens; positions: int64, one per row."""
        out = SampleOut(size=ctypes.sizeof(SampleOut), token=_address(token),
                        logprob=_address(logprob), kept_logprob=_address(kept_logprob),
                        count=_address(count), kept=_address(kept))
        how = Sampling(size=ctypes.sizeof(Sampling), top_k=top_k, top_p=top_p, min_p=min_p,
                       seed=seed, positions=_address(positions))
        return self._other(lib.sb_sample, out,
                           [how, positions, token, logprob, kept_logprob, count, kept],
                           ctypes.addressof(how))

    def order_workspace_size(self):
        """Enough for ids and for topk, whatever their k: what topk needs."""
        return self.needed(self.topk(1, None, None))

    def needed(self, call):
        """The bytes of workspace that call needs: this one, or one that it made. Nothing runs."""
        size = ctypes.c_uint64()
        self.launch.needed = ctypes.addressof(size)
        try:
            call()
        finally:
            self.launch.needed = None
        return size.value

    def _other(self, function, out, keep, *more):
        def call(stream=None, keep=keep): # keep lives as long as the function
            self.launch.stream = stream
            self.ctx.must(function(self.ctx.handle, ctypes.addressof(out), self.pointers[1], *more,
                                   self.pointers[2]))
        return call


class PolicyCall:
    """One sb_policy_loss with its structs filled in. merge makes a call that merges records by the
    same rules."""

    def __init__(self, ctx, policy, out, keep):
        self.ctx, self.policy, self.out, self.keep = ctx, policy, out, keep
        self.launch = Launch(size=ctypes.sizeof(Launch))
        self.pointers = [ctypes.addressof(s) for s in (out, policy, self.launch)]

    def workspace_size(self):
        size = ctypes.c_uint64()
        self.launch.needed = ctypes.addressof(size)
        self()
        self.launch.needed = None
        return size.value

    use_workspace = Call.use_workspace

    def __call__(self, stream=None):
        self.launch.stream = stream
        self.ctx.must(lib.sb_policy_loss(self.ctx.handle, *self.pointers))

    def merge(self, records, count):
        def call(stream=None):
            self.launch.stream = stream
            self.ctx.must(lib.sb_policy_merge(self.ctx.handle, *self.pointers[:2],
                                              _address(records), count, self.pointers[2]))
        return call


class Head:
    """A head of a tensor of weights [V, D] in a format: "h24w16" or "h24w24"."""

    def __init__(self, ctx, weights, form):
        self.ctx, self.weights, self.handle = ctx, weights, ctypes.c_void_p()
        ids, width = weights.shape
        self.of = Weights(size=ctypes.sizeof(Weights), dtype=_dtype(weights),
                          weights=_address(weights), ids=ids, width=width, bias_dtype=F32,
                          format={"h24w16": 1, "h24w24": 2}[form], scale=1.0)
        size = ctypes.c_uint64()
        ctx.must(lib.sb_head_bytes(ctx.handle, ctypes.byref(size), ctypes.byref(self.of)))
        self.bytes = size.value
        ctx.must(lib.sb_head_create(ctx.handle, ctypes.byref(self.handle), ctypes.byref(self.of),
                                    None, 0, None))

    def update(self, stream=None):
        """Prepares the weights again."""
        launch = Launch(size=ctypes.sizeof(Launch), stream=stream)
        self.ctx.must(lib.sb_head_update(self.ctx.handle, self.handle, ctypes.byref(self.of),
                                         ctypes.byref(launch)))

    def free(self):
        self.ctx.must(lib.sb_head_free(self.ctx.handle, self.handle))


class Context:
    def __init__(self, backend, isa=None, threads=0):
        options = OpenOptions(ctypes.sizeof(OpenOptions), threads, isa and isa.encode())
        handle, why = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        if lib.sb_open(ctypes.byref(handle), lib.sb_abi(), backend.encode(), ctypes.byref(options),
                       why, ctypes.c_size_t(256)) != 0:
            raise Unavailable(why.value.decode())
        self.handle = handle
        self.isa = lib.sb_context_isa(handle).decode()

    def close(self):
        lib.sb_close(self.handle)
        self.handle = None

    def plan(self):
        """How the last operation was divided, in words."""
        return lib.sb_last_plan(self.handle).decode()

    def must(self, status):
        if status != 0:
            raise RuntimeError(lib.sb_last_error(self.handle).decode())

    def prepare(self, logits, ids, token=None, lse=None, sequence=None, count=None, mask=None,
                temperatures=None, row_list=None, cu_seqlens=None, shape=None, shift=0,
                temperature=1.0, row_stride=0, split=0, threads=0, cluster=0, check=0,
                table=0, one_read=0, entropy=None, saved=None):
        """Makes a Call. logits is an [N, V] tensor; otherwise shape gives (N, V) or (B, T, V)."""
        *rows, vocab = shape or logits.shape
        batch = Batch(
            size=ctypes.sizeof(Batch), logits_dtype=F32 if logits is None else _dtype(logits),
            logits=_address(logits), hidden_dtype=F32,
            vocab=vocab, row_stride=row_stride, cu_seqlens=_address(cu_seqlens), ids=_address(ids),
            mask=_address(mask), temperatures=_address(temperatures), row_list=_address(row_list),
            row_count=0 if row_list is None else len(row_list), ignore_index=-100,
            cu_seqlens_dtype=I32 if cu_seqlens is None else _dtype(cu_seqlens),
            ids_dtype=I32 if ids is None else _dtype(ids), temperature=temperature, shift=shift)
        if cu_seqlens is not None:
            batch.batch, batch.rows = len(cu_seqlens) - 1, rows[0]
        else:
            batch.batch, batch.time = rows if len(rows) == 2 else (1, rows[0])
        out = Out(size=ctypes.sizeof(Out), token=_address(token), lse=_address(lse),
                  sequence=_address(sequence), count=_address(count), entropy=_address(entropy),
                  saved=_address(saved))
        launch = Launch(size=ctypes.sizeof(Launch), split=split, threads=threads,
                        cluster=cluster, table=table, one_read=one_read, check=check)
        keep = [logits, ids, token, lse, sequence, count, mask, temperatures, row_list, cu_seqlens,
                entropy, saved]
        return Call(self, batch, out, launch, keep)

    def prepare_hidden(self, hidden, head, ids, **options):
        """The same for hidden states [N, D] and a Head in place of logits."""
        vocab, width = head.weights.shape
        call = self.prepare(None, ids, shape=(len(hidden), vocab), **options)
        call.batch.head, call.batch.hidden = head.handle, _address(hidden)
        call.batch.hidden_width, call.batch.hidden_dtype = width, _dtype(hidden)
        call.keep += [hidden, head]
        return call

    def prepare_policy(self, now, advantages, out, rules=None, shape=None, **inputs):
        """Makes a PolicyCall of now [B, T], or of that shape if now is None, for use_gradient. out:
        name to tensor, of sb_policy_out; rules: name to number, of sb_policy; inputs: tensors of
        sb_policy."""
        batch, time = shape or now.shape
        rules = {"eps_low": 0.2, "eps_high": 0.2, "loss": 1, "norm": 1, "kl": 3, "upstream": 1.0,
                 **(rules or {})}
        policy = Policy(size=ctypes.sizeof(Policy), cu_seqlens_dtype=I32, now=_address(now),
                        advantages=_address(advantages), batch=batch, time=time,
                        per_token=int(advantages.numel() != batch), **rules,
                        **{name: _address(x) for name, x in inputs.items()})
        outs = PolicyOut(size=ctypes.sizeof(PolicyOut),
                         **{name: _address(x) for name, x in out.items()})
        return PolicyCall(self, policy, outs, [now, advantages, out, inputs])

    def logprob(self, logits, ids, stream=None, **options):
        self.prepare(logits, ids, **options)(stream)
