"""Time functions side by side, and say on which machine."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Times = dict[str, list[float]]

# A function that takes longer than this is called at most three times.
SLOW_SECONDS = 10.0
# Rounds that do not count: over the first calls of a process the C library learns which memory to keep, and the system
# fills what it hands out anew with zeros. A training loop is past that.
WARM_UP, QUICK_SECONDS = 4, 1.0


def _once(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    del result  # releasing the result is not part of the call
    return seconds


def alternate(functions: Mapping[str, Callable[[], Any]], repetitions: int) -> Times:
    """Call all functions in turn, again and again, and return the seconds of every call.

    What disturbs the machine for a while then disturbs a function and its yardstick alike. The first four rounds warm
    up and do not count; functions of more than a second have one such round, slow ones none.
    """
    times: Times = {name: [] for name in functions}
    wanted = dict.fromkeys(functions, repetitions)
    quick = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for name, function in functions.items():
            seconds = _once(function)
            if seconds > SLOW_SECONDS:
                times[name].append(seconds)
                wanted[name] = min(3, repetitions)
            elif seconds < QUICK_SECONDS:
                quick.append(function)
        for _ in range(WARM_UP - 1):
            for function in quick:
                _once(function)
        while any(len(times[name]) < wanted[name] for name in functions):
            for name, function in functions.items():
                if len(times[name]) < wanted[name]:
                    times[name].append(_once(function))
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
