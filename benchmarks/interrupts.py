"""How long calls take to end after a signal: the longest of ten waits, spread over the time of each call.

    python benchmarks/interrupts.py [--size 256] [--threads 1]

A timer sends the signal that Ctrl-C would send; its handler raises, as Python's own does. Calls that end before their
signal comes do not count.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

import data
import malis

WAITS = 10
LIMIT = 0.5  # seconds


class Interrupted(Exception):
    """What the handler of the signal raises."""


def _handle(number: int, frame: object) -> None:
    raise Interrupted


def wait(call: Callable[[], object], delay: float) -> float | None:
    """Send a signal after `delay` seconds of a call; returns the seconds from there to its end, or None."""
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        call()
    except Interrupted:
        return time.perf_counter() - start - delay
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def calls(size: int) -> dict[str, Callable[[], object]]:
    """The functions that take long, on one volume."""
    seg, aff, nhood = data.realistic((size, size, size))
    mask = np.random.default_rng(0).random(aff.shape) < 0.9
    seeds = np.where(np.random.default_rng(1).random(seg.shape) < 1e-4, seg, 0)
    node1, node2 = malis.nodelist_from_shape(seg.shape, nhood)
    return {
        "malis_loss": lambda: malis.malis_loss(aff, seg, nhood),
        "malis_loss, mask": lambda: malis.malis_loss(aff, seg, nhood, edge_mask=mask),
        "pairs": lambda: malis.pairs(aff, seg, nhood),
        "pairs, unconstrained": lambda: malis.pairs(
            aff, seg, nhood, constrain_positive=False, constrain_negative=False
        ),
        "edge_pairs": lambda: malis.edge_pairs(node1, node2, aff, seg),
        "rand_curve": lambda: malis.rand_curve(aff, seg, nhood),
        "maximum_spanning_tree": lambda: malis.maximum_spanning_tree(aff, nhood),
        "affgraph_to_seg": lambda: malis.affgraph_to_seg(aff, nhood, threshold=0.5),
        "watershed_from_affgraph": lambda: malis.watershed_from_affgraph(aff, seeds, nhood),
        "watershed_basins": lambda: malis.watershed_basins(aff, nhood),
        "connect_labels": lambda: malis.connect_labels(seg, nhood),
        "seg_to_affgraph": lambda: malis.seg_to_affgraph(seg, nhood),
    }


def main() -> int:
    """Run the command line; returns 1 where a wait is longer than `LIMIT`."""
    parser = argparse.ArgumentParser(description="How long calls take to end after a signal.")
    parser.add_argument("--size", type=int, default=256, help="of the volume, along each axis (256)")
    parser.add_argument("--threads", type=int, default=1, help="of each call (1)")
    options = parser.parse_args()
    malis.set_num_threads(options.threads)
    signal.signal(signal.SIGALRM, _handle)
    longest = 0.0
    print(f"{options.size}^3, {options.threads} threads\n\n| call | its time | longest wait |\n|---|---:|---:|")
    for name, call in calls(options.size).items():
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        waits = [wait(call, seconds * (i + 0.5) / WAITS) for i in range(WAITS)]
        came = [w for w in waits if w is not None]
        longest = max([longest, *came])
        print(
            f"| {name} | {seconds:.2f} s | {1000 * max(came):.0f} ms |" if came else f"| {name} | {seconds:.2f} s | - |"
        )
    return int(longest > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
