"""Time functions side by side, say on which machine and what is installed there, and log how far a run is."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Times = dict[str, list[float]]

# A function that takes longer than this is called at most three times.
SLOW_SECONDS = 10.0
# Rounds that do not count: over the first calls of a process the C library learns which memory to keep, and the system
# fills what it hands out anew with zeros. A training loop is past that.
WARM_UP, QUICK_SECONDS = 4, 1.0
# The system counts processor time in steps of 10 ms: two per cent of so many seconds.
USER_SECONDS = 0.5


def seconds_of(function: Callable[[], Any]) -> float:
    """Call a function once."""
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    del result  # releasing the result is not part of the call
    return seconds


def user_seconds_of(function: Callable[[], Any]) -> float:
    """Return the seconds that the processors spend on a call outside of the system, in the mean over some calls.

    What the system does, mostly clearing the memory that it hands out, does not count.
    """
    calls, before = 0, os.times().user
    while (spent := os.times().user - before) < USER_SECONDS:
        function()
        calls += 1
    return spent / calls


def alternate(functions: Mapping[str, Callable[[], Any]], repetitions: int) -> Times:
    """Call all functions in turn, again and again, and return the seconds of every call.

    What disturbs the machine for a while then disturbs a function and its yardstick alike. The first four rounds warm
    up and do not count; functions of more than a second have one such round, slow ones none.
    """
    return alternate_timers({name: partial(seconds_of, call) for name, call in functions.items()}, repetitions)


def alternate_timers(timers: Mapping[str, Callable[[], float]], repetitions: int) -> Times:
    """Do the same for functions that call something once, here or in another process, and return its seconds."""
    times: Times = {name: [] for name in timers}
    wanted = dict.fromkeys(timers, repetitions)
    quick = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for name, timer in timers.items():
            seconds = timer()
            if seconds > SLOW_SECONDS:
                times[name].append(seconds)
                wanted[name] = min(3, repetitions)
            elif seconds < QUICK_SECONDS:
                quick.append(timer)
        for _ in range(WARM_UP - 1):
            for timer in quick:
                timer()
        while any(len(times[name]) < wanted[name] for name in timers):
            for name, timer in timers.items():
                if len(times[name]) < wanted[name]:
                    times[name].append(timer())
    finally:
        if was_enabled:
            gc.enable()
    return times


def median(times: Times, name: str) -> float:
    return statistics.median(times[name])


def as_time(seconds: float) -> str:
    """Write seconds with three digits, in the unit that suits them."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


# -------------------------------------------------------------------------------------------------- machine
def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping, where the system tells."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """Describe what the numbers were measured on."""
    facts = {"processor": _processor(), "cores": str(os.cpu_count())}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f}"
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["date"] = time.strftime("%Y-%m-%d")
    facts["Python"] = platform.python_version()
    for package in ("malis-loss", "numpy", "torch", "higra", "scipy", "connected-components-3d", "scikit-image"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts
