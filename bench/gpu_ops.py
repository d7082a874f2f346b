#!/usr/bin/env python3
"""Measures gradients, entropy, several ids, top-k and divergence on the CUDA backend beside a floor
and the strongest peers, in one run on one GPU.

    python3 bench/gpu_ops.py [--out bench/results/ops-h200-DATE.md] [--peers DIR]
                             [--phases infinite,gradients,entropy,order,divergence,sustained,policy]
                             [--rows 4096,16384,512] [--vocab 151936] [--dtypes bf16]

Requirements and method are those of bench/gpu.py. The floor of a call that only reads is reading;
that of a gradient is the best of a copy kernel and PyTorch's device copy of the same bytes. Calls
in place get fresh logits before each call, outside the events. The memory is what a call needs
beside its inputs: the workspace and saved rows for samebits, whose outputs exist; for peers the
allocator's peak, with outputs.

    infinite    who gives NaN for rows with -inf logits; what torch.compile compiles runs as it is
    gradients   forward + gradient for all --rows; the gradient after a forward call for those above
                512, since PyTorch can capture its backward pass only together with the forward pass
    entropy     logprob + entropy, for all --rows
    order       top-k and logprobs of several ids, for the first of --rows
    divergence  of two batches of the first of --rows
    sustained   forward + gradient for 2 s back to back, with clocks and power
    policy      logprobs, a clipped policy loss and the gradient by the logits in one call, for all
                --rows; beside three separate calls, what torch.compile makes of PyTorch's loss,
                and this loss of other logprobs; for the first of --rows also for 2 s back to back
    compile     at the end, entropy and divergence of the first of --rows once more, with
                torch.compile in its default mode among the peers
"""
import functools
import sys

import torch

import clocks
import gpu
import peers
import tables
import timing
from shapes import BIG, GRAPH_ROWS, Shape, unlike, with_workspace

PHASES = ["infinite", "gradients", "entropy", "order", "divergence", "sustained", "compile",
          "policy"]
SUSTAINED = ["quack CE fused", "flash-attn CE", "RL-Kernel Triton"]
TWO = tables.OURS + ", two calls"
IN_PLACE = tables.OURS + ", in place"


def outputs(rows, *extents, dtype=torch.float32, device="cuda"):
    return torch.full((rows, *extents), 7, dtype=dtype, device=device)


def saved_rows(rows, device="cuda"):
    return torch.zeros(rows, 32, dtype=torch.uint8, device=device)


class Ops(gpu.Run):
    """A run whose record shows every line by itself."""

    def programs(self):
        return [text for line in self.lines for text in tables.details(line, self.poisoned())]

    def line(self, call, shape, rows=None):
        dtype, vocab, of = shape.key
        return {"call": call, "dtype": dtype, "vocab": vocab, "rows": rows or of, "compared": 0,
                "unlike": 0, "errors": {}, "memory": {}, "ones": set()}

    def compare(self, line, pairs):
        """pairs: (results of the GPU, what they have to be)."""
        line["compared"] += max(len(a) for a, _ in pairs)
        line["unlike"] += sum(unlike(a, b) for a, b in pairs)

    def finish(self, line, timed, floor):
        where = f"{line['call']}, N = {line['rows']}"
        line["times"] = self.in_turns(where, {"floor": floor, **timed})
        line["floor"] = line["times"].pop("floor").us
        self.add(line)

    def peer(self, line, shape, timed, name, calls, error=None, restore=None):
        """Adds a peer to what is timed, after two calls which tell its memory and its error, a
        function of the result. restore: as of timing.Events, which then time it."""
        before_each = restore or (lambda: None)
        try:
            before_each()
            calls[0]() # what a first call makes and keeps is not its memory
            before_each()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            result = calls[0]()
            torch.cuda.synchronize()
            line["memory"][name] = torch.cuda.max_memory_allocated() - before
            if error:
                line["errors"][name] = error(result)
            del result
            timed[name] = (timing.Events(calls, restore) if restore
                           else shape.timed(calls, at_least=16))
        except Exception as why: # a failing peer must not end the run; the record shows it
            self.note(f"{line['call']}, N = {line['rows']}: {name}", why)
            torch.cuda.synchronize()


def error_against(exact, rows):
    """The greatest difference from fp64 values of some rows, relative to the greatest of them."""
    return lambda got: float((got.detach()[rows].double() - exact).abs().max()
                             / exact.abs().max())


# ---- gradients ----------------------------------------------------------------------------------

class Gradients:
    """The calls of one shape that compute gradients, samebits' and peers'."""

    def __init__(self, run, key):
        self.run, self.shape = run, Shape(*key)
        rows, x = self.shape.rows, self.shape.logits[0]
        self.upstream = torch.randn(rows, device="cuda",
                                    generator=torch.Generator(device="cuda").manual_seed(rows))
        self.grad = torch.empty_like(x)
        self.token, self.saved = outputs(rows), saved_rows(rows)
        # Calls in place need the logits back, which a graph would time as well.
        self.scratch = torch.empty_like(x) if rows > GRAPH_ROWS else None
        self.some = self.shape.some_rows(16)
        exact = self.shape.exact(self.some).exp().neg()
        exact[torch.arange(len(self.some)), self.shape.ids[0][self.some]] += 1
        self.error_of_ones = error_against(-exact, self.some)
        self.error = error_against(exact * self.upstream[self.some].double()[:, None], self.some)

    def restore(self):
        self.scratch.copy_(self.shape.logits[0])

    def one_call(self, x, ids, grad):
        call = self.run.ctx.prepare(x, ids, token=self.token)
        call.use_gradient(grad, token=self.upstream)
        size = call.workspace_size()
        with_workspace(call, size)
        return lambda: call(timing.stream()), size

    def two_calls(self, x, ids, grad):
        call = self.run.ctx.prepare(x, ids, token=self.token, saved=self.saved)
        size = call.workspace_size()
        with_workspace(call, size)
        backward = call.backward(grad, self.saved, token=self.upstream)

        def both():
            call(timing.stream())
            backward(timing.stream())
        return both, size + self.saved.numel()

    def ways(self):
        """samebits' ways to the gradient: name and the method that makes one."""
        return (tables.OURS, self.one_call), (TWO, self.two_calls)

    def samebits(self, line):
        """name: what to time; and the comparison of bits."""
        timed = {}
        for name, make in self.ways():
            try:
                made = [make(a, b, self.grad) for a, b in zip(self.shape.logits, self.shape.ids)]
                self.grad.fill_(7)
                made[0][0]()
                line["memory"][name] = made[0][1]
                line.setdefault("plan", self.run.ctx.plan())
                self.compare(line, name)
                timed[name] = self.shape.timed([call for call, _ in made], at_least=16)
                self.in_place(line, timed, make)
            except Exception as why:
                self.run.note(f"{line['call']}, N = {line['rows']}: {name}", why)
        return timed

    def in_place(self, line, timed, make):
        """The first way in place as well, where that is measured."""
        if self.scratch is not None and IN_PLACE not in timed:
            call, line["memory"][IN_PLACE] = make(self.scratch, self.shape.ids[0], self.scratch)
            self.restore()
            call()
            self.run.compare(line, [(self.scratch, self.grad)])
            timed[IN_PLACE] = timing.Events([call], self.restore)
        elif self.scratch is not None: # two calls; scratch has the gradient of one
            self.run.compare(line, [(self.grad, self.scratch)])

    def compare(self, line, name):
        """Compares some rows of self.grad and self.token with the cpu backend's."""
        x, ids = self.shape.first()
        few, token = x[self.some].cpu(), outputs(len(self.some), device="cpu")
        expected = torch.empty_like(few)
        self.on_cpu(few, ids[self.some].cpu(), token, expected)
        self.run.compare(line, [(self.grad[self.some], expected), (self.token[self.some], token)])
        line["errors"][name] = self.error(self.grad)

    def on_cpu(self, x, ids, token, grad):
        """The logprobs and the gradient of the rows `some`, by the cpu backend."""
        saved = saved_rows(len(x), "cpu")
        call = self.run.cpu.prepare(x, ids, token=token, saved=saved)
        call()
        call.backward(grad, saved, token=self.upstream[self.some].cpu())()

    def both(self):
        """forward + gradient."""
        line = self.run.line("forward + gradient", self.shape)
        line["floor is"] = "a copy"
        timed = self.samebits(line)
        for peer in self.run.peers.gradient if self.run.peers else []:
            if peer.in_place and self.scratch is None:
                continue
            calls = self.shape.each(lambda x, ids, peer=peer: peer.call(x, ids, self.upstream))
            if peer.in_place:
                ids = self.shape.ids[0]
                calls = [lambda peer=peer: peer.call(self.scratch, ids, self.upstream)]
            self.run.peer(line, self.shape, timed, peer.name, calls,
                          self.error_of_ones if peer.ones else self.error,
                          self.restore if peer.in_place else None)
            if peer.ones:
                line["ones"].add(peer.name)
        self.run.finish(line, timed, self.floor())

    def alone(self):
        """The gradient after a forward call."""
        line, pairs = self.run.line("gradient", self.shape), list(zip(self.shape.logits,
                                                                      self.shape.ids))
        line["floor is"] = "a copy"
        calls = []
        for x, ids in pairs:
            saved = saved_rows(self.shape.rows)
            forward = self.run.ctx.prepare(x, ids, token=self.token, saved=saved)
            with_workspace(forward, forward.workspace_size())
            forward(timing.stream())
            backward = forward.backward(self.grad, saved, token=self.upstream)
            calls.append(lambda backward=backward: backward(timing.stream()))
        calls[0]()
        line["plan"] = self.run.ctx.plan()
        x, ids = pairs[0]
        self.run.ctx.prepare(x, ids, token=self.token)(timing.stream())
        self.compare(line, tables.OURS)
        timed = {tables.OURS: self.shape.timed(calls, at_least=16)}
        for peer in self.run.peers.gradient if self.run.peers else []:
            if peer.alone:
                try:
                    ready = [peer.alone(x, ids, self.upstream) for x, ids in pairs]
                except Exception as why:
                    self.run.note(f"gradient, N = {self.shape.rows}: {peer.name}", why)
                    continue
                self.run.peer(line, self.shape, timed, peer.name, ready)
        self.run.finish(line, timed, self.floor())

    def floor(self):
        return self.run.floors.copying(self.shape, self.grad, self.run.args.seconds / 4)

    def sustained(self):
        late = self.run.late.setdefault(("forward + gradient",) + self.shape.key, {})
        x, ids = self.shape.first()
        calls = {"copy floor": self.floor().calls[0]}
        calls[tables.OURS] = self.one_call(x, ids, self.grad)[0]
        for peer in self.run.peers.gradient if self.run.peers else []:
            if peer.name in SUSTAINED:
                calls[peer.name] = lambda peer=peer: peer.call(x, ids, self.upstream)
        self.back_to_back(late, calls)

    def back_to_back(self, late, calls):
        for name, call in calls.items():
            try:
                late[name] = clocks.sustained(call, self.run.args.sustained)
                self.run.say(f"back to back, {name}: {late[name]}")
            except Exception as why:
                self.run.note(f"back to back, {name}", why)
        self.run.write()


class PolicyGradients(Gradients):
    """The calls of one shape that compute the gradient of a clipped policy loss."""

    RULES = {"loss": 1, "norm": 1} # clipped, the mean of the tokens

    def __init__(self, run, key):
        super().__init__(run, key)
        self.scratch = None # nothing is timed in place
        rows, (x, ids) = self.shape.rows, self.shape.first()
        random = torch.Generator(device="cuda").manual_seed(rows + 1)
        token = outputs(rows)
        run.ctx.logprob(x, ids, stream=timing.stream(), token=token)
        self.old = token + 0.3 * torch.randn(rows, device="cuda", generator=random)
        self.advantages = self.upstream[None]
        self.loss = outputs(1)
        exact = functools.partial(peers.clipped_loss, token=lambda y, i: torch.log_softmax(
            y, -1).gather(-1, i[:, None])[:, 0])
        gradient, _ = peers.gradient_of(exact)(
            x[self.some].double(), ids[self.some], self.old[self.some].double(),
            self.upstream[self.some].double())
        # what is timed averages over all rows
        self.error = error_against(gradient * (len(self.some) / rows), self.some)

    def policy(self, ctx, now, rows=None, **out):
        """The loss of rows, of all of them if None."""
        part = slice(None) if rows is None else rows
        where = (now if now is not None else out["loss"]).device
        old = self.old[part][None].to(where)
        advantages = self.advantages[:, part].to(where)
        return ctx.prepare_policy(now, advantages, out, self.RULES | {"tokens": self.shape.rows},
                                  shape=old.shape, old=old)

    def one_call(self, x, ids, grad, one_read=0):
        call = self.run.ctx.prepare(x, ids, token=self.token, one_read=one_read)
        call.use_gradient(grad, policy=self.policy(self.run.ctx, None, loss=self.loss))
        size = call.workspace_size()
        with_workspace(call, size)
        return lambda: call(timing.stream()), size

    def two_launches(self, x, ids, grad):
        return self.one_call(x, ids, grad, -1)

    def two_calls(self, x, ids, grad):
        """Three, in truth: the loss stands between them."""
        call = self.run.ctx.prepare(x, ids, token=self.token, saved=self.saved)
        derivatives = torch.empty_like(self.token)
        loss = self.policy(self.run.ctx, self.token[None], loss=self.loss, token=derivatives)
        size = max(call.workspace_size(), loss.workspace_size())
        with_workspace(call, size)
        with_workspace(loss, size)
        backward = call.backward(grad, self.saved, token=derivatives)

        def all_three():
            call(timing.stream())
            loss(timing.stream())
            backward(timing.stream())
        return all_three, size + self.saved.numel() + derivatives.numel() * 4

    def ways(self):
        return ((tables.OURS, self.one_call), (tables.OURS + ", two reads", self.two_launches),
                (tables.OURS + ", three calls", self.two_calls))

    def on_cpu(self, x, ids, token, grad):
        loss = outputs(1, device="cpu")
        call = self.run.cpu.prepare(x, ids, token=token)
        call.use_gradient(grad, policy=self.policy(self.run.cpu, None, self.some, loss=loss))
        call()

    def all(self):
        line = self.run.line("forward + policy gradient", self.shape)
        line["floor is"] = "a copy"
        timed = self.samebits(line)
        for name, peer in self.others():
            calls = self.shape.each(lambda x, ids, peer=peer: peer(x, ids, self.old, self.upstream))
            self.run.peer(line, self.shape, timed, name, calls, lambda got: self.error(got[0]))
        self.run.finish(line, timed, self.floor())

    def others(self):
        """What torch.compile makes of PyTorch's loss, and this loss of others' logprobs."""
        if not self.run.peers:
            return
        yield "torch.compile", peers.gradient_of(peers.compiled(peers.clipped_loss, "default"))
        for peer in self.run.peers.gradient:
            if peer.logprob:
                yield peer.name + ", PyTorch's loss", peers.gradient_of(functools.partial(
                    peers.clipped_loss, token=peer.logprob))

    def sustained(self):
        late = self.run.late.setdefault(("forward + policy gradient",) + self.shape.key, {})
        x, ids = self.shape.first()
        calls = {"copy floor": self.floor().calls[0],
                 tables.OURS: self.one_call(x, ids, self.grad)[0]}
        for name, peer in self.others():
            if name == "torch.compile":
                calls[name] = lambda peer=peer: peer(x, ids, self.old, self.upstream)
        self.back_to_back(late, calls)


def gradients(run, dtype, rows, phases):
    for i, n in enumerate(rows):
        if not run.enough(10, f"gradients, N = {n}"):
            continue
        calls = Gradients(run, (dtype, run.args.vocab, n))
        if "gradients" in phases:
            calls.both()
            if n > GRAPH_ROWS:
                calls.alone()
        if "sustained" in phases and i == 0:
            calls.sustained()


def policy(run, dtype, rows):
    for i, n in enumerate(rows):
        if not run.enough(12, f"policy gradients, N = {n}"):
            continue
        calls = PolicyGradients(run, (dtype, run.args.vocab, n))
        calls.all()
        if i == 0:
            calls.sustained()


# ---- calls that only read -----------------------------------------------------------------------

def entropy(run, dtype, rows, with_compile=False):
    shape = Shape(dtype, run.args.vocab, rows)
    line, (x, ids), some = run.line("logprob + entropy", shape), shape.first(), shape.some_rows(16)
    token, result, calls = outputs(rows), outputs(rows), []
    for a, b in zip(shape.logits, shape.ids):
        call = run.ctx.prepare(a, b, token=token, entropy=result)
        line["memory"][tables.OURS] = call.workspace_size()
        with_workspace(call, call.workspace_size())
        calls.append(lambda call=call: call(timing.stream()))
    calls[0]()
    line["plan"] = run.ctx.plan()
    expected = outputs(len(some), device="cpu"), outputs(len(some), device="cpu")
    run.cpu.logprob(x[some].cpu(), ids[some].cpu(), token=expected[0], entropy=expected[1])
    run.compare(line, [(token[some], expected[0]), (result[some], expected[1])])
    lp = shape.exact(some)
    exact = -(lp.exp() * lp).sum(-1)

    def error(got):
        return float((got[1][some].double() - exact).abs().max())
    line["errors"][tables.OURS] = error((token, result))
    timed, others = {tables.OURS: shape.timed(calls)}, {}
    if run.peers:
        others = {"PyTorch lse - sum(p * x)": peers.entropy_and_logprob,
                  "PyTorch by chunks": peers.entropy_by_chunks}
        if with_compile:
            others["torch.compile"] = peers.compiled(peers.entropy_and_logprob, "default")
    with torch.no_grad():
        for name, peer in others.items():
            run.peer(line, shape, timed, name, shape.each(peer), error)
        run.finish(line, timed, run.floors.reading(shape, run.args.seconds / 4))


def several(run, shape, ids, what):
    """what, a function of a Call, for every buffer, with the workspace it may need; and its
    size."""
    calls = [run.ctx.prepare(x, ids) for x in shape.logits]
    made = [what(call) for call in calls]
    size = calls[0].needed(made[0])
    for call in calls:
        with_workspace(call, size)
    return [lambda call=call: call(timing.stream()) for call in made], size


def order(run, dtype, rows):
    shape = Shape(dtype, run.args.vocab, rows)
    floor, some = run.floors.reading(shape, run.args.seconds / 4), shape.some_rows(16)
    few = shape.logits[0][some].cpu()
    for k in (1, 8, 64):
        line, timed = run.line(f"top-{k}", shape), {}
        first, logprob = outputs(rows, k, dtype=torch.int32), outputs(rows, k)
        calls, line["memory"][tables.OURS] = several(
            run, shape, None, lambda call, k=k: call.topk(k, first, logprob))
        calls[0]()
        line["plan"] = run.ctx.plan()
        expected = (outputs(len(some), k, dtype=torch.int32, device="cpu"),
                    outputs(len(some), k, device="cpu"))
        run.cpu.prepare(few, None).topk(k, *expected)()
        run.compare(line, [(first[some], expected[0]), (logprob[some], expected[1])])
        timed[tables.OURS] = shape.timed(calls)
        with torch.no_grad():
            for name, peer in run.peers.top if run.peers else []:
                run.peer(line, shape, timed, name,
                         shape.each(lambda x, _, peer=peer, k=k: peer(x, k)))
            run.finish(line, timed, floor)
    k = 16
    many = torch.randint(0, run.args.vocab, (rows, k), device="cuda")
    logprob, rank = outputs(rows, k), outputs(rows, k, dtype=torch.int32)
    for what, ranks in ((f"{k} ids", None), (f"{k} ids and ranks", rank)):
        line, timed = run.line(what, shape), {}
        calls, line["memory"][tables.OURS] = several(
            run, shape, many, lambda call, ranks=ranks: call.ids(k, logprob, ranks))
        calls[0]()
        line["plan"] = run.ctx.plan()
        expected = outputs(len(some), k, device="cpu")
        run.cpu.prepare(few, many[some].cpu()).ids(k, expected)()
        run.compare(line, [(logprob[some], expected)])
        timed[tables.OURS] = shape.timed(calls)
        if ranks is None and run.peers:
            run.peer(line, shape, timed, "PyTorch log_softmax", shape.each(
                lambda x, _: torch.log_softmax(x.float(), -1).gather(-1, many)))
        run.finish(line, timed, floor)


def divergence(run, dtype, rows, with_compile=False):
    shape = Shape(dtype, run.args.vocab, 2 * rows) # p and q, which the floor reads as well
    pairs = [(x[:rows], x[rows:]) for x in shape.logits]
    line, timed = run.line("divergence", shape, rows), {}
    line["floor is"] = "reading both"
    token, calls = outputs(rows), []
    for p, q in pairs:
        call = run.ctx.prepare(p, None)
        apart = call.kl(run.ctx.prepare(q, None), token)
        line["memory"][tables.OURS] = call.needed(apart)
        with_workspace(call, call.needed(apart))
        calls.append(lambda apart=apart: apart(timing.stream()))
    calls[0]()
    line["plan"] = run.ctx.plan()
    p, q = pairs[0]
    some = torch.arange(0, rows, max(1, rows // 16), device="cuda")
    expected = outputs(len(some), device="cpu")
    run.cpu.prepare(p[some].cpu(), None).kl(run.cpu.prepare(q[some].cpu(), None), expected)()
    run.compare(line, [(token[some], expected)])
    lp, lq = (torch.log_softmax(t[some].double(), -1) for t in (p, q))
    error = error_against((lp.exp() * (lp - lq)).sum(-1), some)
    line["errors"][tables.OURS] = error(token)
    timed[tables.OURS] = shape.timed(calls)
    others = {}
    if run.peers:
        others = {"PyTorch kl_div": peers.kl_div}
        if with_compile:
            others["torch.compile"] = peers.compiled(peers.divergence, "default")
    with torch.no_grad():
        for name, peer in others.items():
            run.peer(line, shape, timed, name,
                     [lambda p=p, q=q, peer=peer: peer(p, q) for p, q in pairs], error)
        run.finish(line, timed, run.floors.reading(shape, run.args.seconds / 4))


def infinite(run):
    """Divergences are those of rows from half their logits."""
    def backward(x, ids):
        rows = len(ids)
        token, saved, grad = outputs(rows), saved_rows(rows), torch.empty_like(x)
        call = run.ctx.prepare(x, ids, token=token, saved=saved)
        call(timing.stream())
        call.backward(grad, saved, token=outputs(rows))(timing.stream())
        return grad

    def entropies(x, ids):
        result = outputs(len(ids))
        run.ctx.logprob(x, ids, stream=timing.stream(), entropy=result)
        return result

    def top(x, ids):
        first, logprob = outputs(len(ids), 8, dtype=torch.int32), outputs(len(ids), 8)
        run.ctx.prepare(x, None).topk(8, first, logprob)(timing.stream())
        return logprob

    def apart(x, ids):
        token, q = outputs(len(ids)), x / 2
        run.ctx.prepare(x, None).kl(run.ctx.prepare(q, None), token)(timing.stream())
        return token
    calls = {tables.OURS + ", gradient": backward, tables.OURS + ", entropy": entropies,
             tables.OURS + ", top-8": top, tables.OURS + ", divergence": apart}
    if run.peers:
        for peer in run.peers.gradient:
            calls[peer.name] = lambda x, ids, peer=peer: peer.call(x.clone(), ids,
                                                                  outputs(len(ids)))
        for name, peer in run.peers.top:
            calls[name] = lambda x, ids, peer=peer: peer(x, 8)[1]
        calls["PyTorch lse - sum(p * x)"] = lambda x, ids: peers.entropy_and_logprob(x, ids)[1]
        calls["PyTorch by chunks"] = lambda x, ids: peers.entropy_by_chunks(x, ids)[1]
        calls["PyTorch kl_div"] = lambda x, ids: peers.kl_div(x, x / 2)
        calls["torch.compile"] = lambda x, ids: torch.stack(
            [peers.entropy_and_logprob(x, ids)[1], peers.divergence(x, x / 2)], 1)
    gpu.count_poisoned(run, calls)


def main():
    parser = gpu.parser_of(__doc__, PHASES)
    parser.add_argument("--rows", default="4096,16384,512")
    parser.add_argument("--vocab", type=int, default=BIG)
    parser.add_argument("--dtypes", default="bf16", help="comma-separated: bf16, fp16, fp32")
    args = parser.parse_args()
    phases, rows = gpu.phases_of(args, PHASES), [int(n) for n in args.rows.split(",")]
    run = Ops(args, "Gradients, entropy, order and divergence on a GPU beside peers")
    if "infinite" in phases:
        infinite(run)
    for dtype in args.dtypes.split(","):
        if "gradients" in phases or "sustained" in phases:
            gradients(run, dtype, rows, phases)
            Shape.drop()
        if "policy" in phases:
            policy(run, dtype, rows)
            Shape.drop()
        if "order" in phases and run.enough(10, "order"):
            order(run, dtype, rows[0])
        for n in rows:
            if "entropy" in phases and run.enough(10, f"entropy, N = {n}"):
                entropy(run, dtype, n)
        Shape.drop()
        if "divergence" in phases and run.enough(10, "divergence"):
            divergence(run, dtype, rows[0])
        for name, measure in (("divergence", divergence), ("entropy", entropy)):
            if "compile" in phases and name in phases and run.enough(20, f"{name}, torch.compile"):
                measure(run, dtype, rows[0], True)
    run.close()


if __name__ == "__main__":
    sys.exit(main())
