"""Signals are handled while the core computes, on the main thread: Ctrl-C ends a call, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import malis

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs the timers of POSIX")

SHAPE = (144, 144, 144)
NHOOD = malis.mknhood3d(1)
MANY = np.array([[z, y, x] for z in range(-3, 4) for y in range(-1, 2) for x in range(-1, 2)])


class Interrupted(Exception):
    """What the handler of a signal raises."""


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(5)
    aff = rng.random((3, *SHAPE), dtype=np.float32)
    seg = np.kron(rng.integers(0, 60, (18, 18, 18), dtype=np.int32), np.ones((8, 8, 8), np.int32))
    return aff, seg


@pytest.fixture(scope="module")
def tree(volume):
    return malis.maximum_spanning_tree(volume[0], NHOOD)


@pytest.fixture
def ticks():
    """A signal every two hundredths of a second; counts how often it was handled, and raises at `stop_at`."""

    class Ticks:
        count = 0
        stop_at = 10**9

        def start(self) -> None:
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)

        def stop(self) -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    ticks = Ticks()

    def handle(number, frame):
        ticks.count += 1
        if ticks.count >= ticks.stop_at:
            ticks.stop()
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield ticks
    ticks.stop()
    signal.signal(signal.SIGALRM, before)


def calls(volume, tree, num_threads):
    (aff, seg), n = volume, {"num_threads": num_threads}
    node1, node2 = malis.nodelist_from_shape(SHAPE, NHOOD)
    return {
        "pairs": lambda: malis.pairs(aff, seg, NHOOD, **n),
        "pairs-unconstrained": lambda: malis.pairs(aff, seg, NHOOD, constrain_positive=False, **n),
        "malis_loss": lambda: malis.malis_loss(aff, seg, NHOOD, **n),
        "edge_pairs": lambda: malis.edge_pairs(node1, node2, aff, seg, **n),
        "rand_curve": lambda: malis.rand_curve(aff, seg, NHOOD, **n),
        "affgraph_to_seg": lambda: malis.affgraph_to_seg(aff, NHOOD, 10, threshold=0.9, small="merge", **n),
        "watershed_basins": lambda: malis.watershed_basins(aff, NHOOD, **n),
        "watershed_from_affgraph": lambda: malis.watershed_from_affgraph(aff, seg, NHOOD, **n),
        "maximum_spanning_tree": lambda: malis.maximum_spanning_tree(aff, NHOOD, **n),
        "segment_tree": lambda: malis.segment_tree(tree, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], **n),
        "linkage": lambda: malis.linkage(tree),
        "seg_to_affgraph": lambda: malis.seg_to_affgraph(seg, MANY, **n),
    }


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("function", calls((None, None), None, 1))
def test_signals_are_handled_during_a_call(function, num_threads, volume, tree, ticks):
    call = calls(volume, tree, num_threads)[function]
    threads = threading.active_count()
    # A handler that does not raise may run several times in one call: it would run once, at its end, if the core did
    # not ask for signals.
    ticks.start()
    for _ in range(20):
        before = ticks.count
        call()
        if ticks.count >= before + 2:
            break
    ticks.stop()
    assert ticks.count >= before + 2
    # One that raises ends the call: at its second signal, so within it.
    ticks.stop_at = ticks.count + 2
    ticks.start()
    with pytest.raises(Interrupted):
        for _ in range(20):
            call()
    # Nothing is left: no thread, no lock, and the next call is as good as any.
    assert threading.active_count() == threads
    small = volume[0][:, :20, :20, :20].copy(), volume[1][:20, :20, :20].copy()
    np.testing.assert_array_equal(
        malis.pairs(*small, NHOOD, num_threads=num_threads), malis.pairs(*small, NHOOD, num_threads=1)
    )


def test_other_threads_compute_on(volume, ticks):
    """Python handles signals on the main thread: a call of another is not ended, and does not disturb."""
    results = []
    thread = threading.Thread(target=lambda: results.append(malis.pairs(*volume, NHOOD, num_threads=1)))
    ticks.stop_at = 3
    thread.start()
    ticks.start()
    with pytest.raises(Interrupted):
        for _ in range(50):
            malis.rand_curve(*volume, NHOOD, num_threads=1)
    thread.join()
    np.testing.assert_array_equal(results[0], malis.pairs(*volume, NHOOD))


SCRIPT = """
import sys, time
import numpy as np, malis
rng = np.random.default_rng(0)
aff = rng.random((3, 200, 200, 200), dtype=np.float32)
print("ready", flush=True)
try:
    while True:
        malis.rand_curve(aff, np.ones((200, 200, 200), np.uint8), malis.mknhood3d(1), num_threads=int(sys.argv[1]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


# The command with a segmentation that does not end by itself: however fast the machine is, the signal meets it at work.
COMMAND = """
import sys
import malis
from malis.__main__ import main
segment = malis.affgraph_to_seg

def segment_for_ever(*args, **kwargs):
    print("computing", flush=True)
    while True:
        segment(*args, **kwargs)

malis.affgraph_to_seg = segment_for_ever
sys.exit(main())
"""


def communicate(process):
    """Wait for the end of a process, and end it where it does not come."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def default_interrupt():
    """Shells start what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(command, line, delay, **options):
    """Start a process, send SIGINT some time after it has printed a line; returns its status, output and errors."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, preexec_fn=default_interrupt, **pipes, **options)
    assert process.stdout.readline() == line
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output, errors = communicate(process)
    return process.returncode, output, errors


@pytest.mark.parametrize("num_threads", [1, 2])
def test_ctrl_c(num_threads):
    status, output, errors = interrupted([sys.executable, "-c", SCRIPT, str(num_threads)], "ready\n", 0.3)
    assert output == "interrupted\n", errors
    assert status == 0


def test_ctrl_c_in_the_command_line(tmp_path, volume):
    pytest.importorskip("typer")
    np.save(tmp_path / "aff.npy", np.tile(volume[0], (1, 2, 1, 1)))
    command = [sys.executable, "-c", COMMAND, "segment", "aff.npy", "-o", "seg.npy", "--small", "merge"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
    status, _, errors = interrupted(command, "computing\n", 0.1, cwd=tmp_path, env=environment)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aff.npy"]


def test_interrupt_of_a_jupyter_kernel():
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        define = SCRIPT.split("print")[0].replace("import sys, time", "import sys\nsys.path[:0] = " + repr(sys.path))
        reply = client.execute_interactive(define, timeout=300, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply
        loop = "while True: malis.rand_curve(aff, np.ones((200,) * 3, np.uint8), malis.mknhood3d(1), num_threads=1)"
        threading.Timer(1.0, kernel.interrupt_kernel).start()
        reply = client.execute_interactive(loop, timeout=300, output_hook=lambda message: None)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        reply = client.execute_interactive("assert malis.get_num_threads() > 0", timeout=300)
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
