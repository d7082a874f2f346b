"""Times calls on a GPU, several in turns: replays of CUDA graphs, or single calls.

The figure of a call is the median of its samples. Each of several is sampled in every round, after
a warm-up as long as the sampling; from round to round the order turns, because the power limit
ties a figure to what ran before. The spread is the distance between the smallest and the largest
median of a round.
"""
import collections
import math
import statistics
import time

import torch

WARM = 30   # calls of a warm-up, at most
MOST = 200  # samples per round, at most

Timing = collections.namedtuple("Timing", "us spread") # microseconds, % of them


def stream():
    return torch.cuda.current_stream().cuda_stream


class Graph:
    """Replays of a graph that makes all calls in turn, at_least that many. calls is a list of
    functions without arguments."""

    def __init__(self, calls, at_least=64):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side): # objects created at first use must exist before the capture
            calls[0]()
            calls[-1]()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        # With short graphs, the gaps between them would dominate the time.
        self.calls = calls * math.ceil(at_least / len(calls))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            for call in self.calls:
                call()
        self.per = len(self.calls)

    def prepare(self):
        pass

    def run(self, _):
        self.graph.replay()


class Events:
    """One call at a time, between two events. restore, if given, runs before each call outside the
    events: it puts back what the call destroys."""

    def __init__(self, calls, restore=None):
        self.calls, self.per, self.restore = calls, 1, restore

    def prepare(self):
        if self.restore:
            self.restore()

    def run(self, i):
        self.calls[i % len(self.calls)]()


def sample(timed, seconds):
    """Samples for about that many seconds; each sample is the microseconds per call."""
    start, n = time.perf_counter(), 0
    while n < 3 or (n < WARM and time.perf_counter() - start < seconds):
        timed.prepare()
        timed.run(n)
        n += 1
        if n % 3 == 0: # short queues, so that the clock tells how far the GPU is
            torch.cuda.synchronize()
        if n == 3: # what is made at the first call does not count
            start, began = time.perf_counter(), n
    torch.cuda.synchronize()
    once = (time.perf_counter() - start) / (n - began) if n > began else seconds
    count = int(min(MOST, max(3, seconds / once)))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * count)]
    for i in range(count):
        timed.prepare()
        marks[2 * i].record()
        timed.run(i)
        marks[2 * i + 1].record()
    torch.cuda.synchronize()
    return [marks[2 * i].elapsed_time(marks[2 * i + 1]) * 1e3 / timed.per for i in range(count)]


def quickest(timed, seconds):
    """The one of several that takes the shortest time."""
    medians = [statistics.median(sample(one, seconds)) for one in timed]
    return timed[medians.index(min(medians))]


def in_turns(timed, seconds, failed, rounds=3):
    """Times a dict of several; gives a dict of Timings. If one raises an exception, failed is
    called with its name and the exception, and the others go on."""
    timed = dict(timed)
    samples = {name: [] for name in timed}
    for turn in range(rounds):
        names = list(timed)
        shift = turn * len(names) // rounds
        for name in names[shift:] + names[:shift]:
            try:
                samples[name].append(sample(timed[name], seconds))
            except Exception as why: # whatever it is, the others are still of use
                failed(name, why)
                del timed[name]
    results = {}
    for name in timed:
        median = statistics.median(x for part in samples[name] for x in part)
        medians = [statistics.median(part) for part in samples[name]]
        results[name] = Timing(median, 100 * (max(medians) - min(medians)) / median)
    return results
