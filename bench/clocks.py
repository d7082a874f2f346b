"""Calls back to back for seconds, and the clock, power and temperature of the GPU meanwhile.

A burst of a few hundredths of a second does not reach the power limit; training does.
"""
import statistics
import threading
import time

import torch

try:
    import pynvml
    MISSING = None
except ImportError as why:
    pynvml, MISSING = None, str(why)

PER = 20           # calls between two events
POWER_CAP = 0x4    # of NVML's reasons: the software power limit


class Clocks(threading.Thread):
    """Reads the SM clock (MHz), the power (W) and NVML's reasons for a lower clock until stop.
    Without pynvml there are no readings."""

    def __init__(self, every=0.02):
        super().__init__(daemon=True)
        self.every, self.readings, self.ended = every, [], threading.Event()
        if pynvml:
            pynvml.nvmlInit()
            self.gpu = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())

    def run(self):
        while pynvml and not self.ended.wait(self.every):
            self.readings.append((
                time.perf_counter(),
                pynvml.nvmlDeviceGetClockInfo(self.gpu, pynvml.NVML_CLOCK_SM),
                pynvml.nvmlDeviceGetPowerUsage(self.gpu) / 1000,
                pynvml.nvmlDeviceGetCurrentClocksEventReasons(self.gpu)))

    def stop(self):
        self.ended.set()
        self.join()
        return self.readings


def sustained(call, seconds, restore=None):
    """Makes a call over and over for so many seconds after a rest of half a second. Returns the
    time of a call at first and in the second half, in us, and for that half the median and least
    SM clock, the median power, and whether the power limit lowered the clock. restore runs between
    two measured calls; then each call is timed by itself."""
    torch.cuda.synchronize()
    time.sleep(0.5)
    clocks = Clocks()
    clocks.start()
    marks, per, start = [], 1 if restore else PER, time.perf_counter()
    while time.perf_counter() - start < seconds:
        if restore:
            restore()
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        for _ in range(per):
            call()
        pair[1].record()
        marks.append(pair)
        if len(marks) * per > 3 * PER: # a bounded queue, so that the loop ends in time
            marks[-1 - 2 * PER // per][1].synchronize()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) * 1e3 / per for a, b in marks]
    late = [r for r in clocks.stop() if r[0] > start + seconds / 2]
    line = {"first": statistics.median(times[:max(3, 60 // per)]),
            "us": statistics.median(times[len(times) // 2:])}
    if late:
        line.update({"MHz": statistics.median(r[1] for r in late),
                     "least MHz": min(r[1] for r in late),
                     "W": statistics.median(r[2] for r in late),
                     "capped": any(r[3] & POWER_CAP for r in late)})
    return line
