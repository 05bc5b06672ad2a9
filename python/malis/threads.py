"""The number of threads that the core uses."""

from __future__ import annotations

from malis import _checks, _core


def set_num_threads(n: int) -> None:
    """Set the number of threads that functions use when they are not told.

    Parameters
    ----------
    n : int
        1 to 65536. Results do not depend on it. More threads than cores are never started, nor more than have work.

    Raises
    ------
    ValueError, TypeError
        If `n` is no integer from 1 to 65536.

    Examples
    --------
    >>> import malis
    >>> malis.set_num_threads(2)
    >>> malis.get_num_threads()
    2
    """
    _core.set_num_threads(_checks.as_thread_count(n, "n"))


def get_num_threads() -> int:
    """Get the number of threads that functions use when they are not told.

    Returns
    -------
    int
        What `set_num_threads` was given; before that as many as there are cores that the process may use, by its CPU
        affinity and the CPU limit of its container, divided by the number of processes on this machine that torchrun
        started (LOCAL_WORLD_SIZE), but no more than the environment variable OMP_NUM_THREADS says.

    Examples
    --------
    >>> import malis
    >>> malis.get_num_threads() >= 1
    True
    """
    return _core.num_threads()
