"""Outputs that are complete or not there at all, whatever ends the run, and one writer at a time.

Data are written under a temporary name beside the output, which gets its name when they are complete. While a run
writes an output it holds a lock on a small file beside it. The system gives the lock back when a process ends, however
it ends: what lies beside a lock file that nobody holds was left by a run that was killed, and the next run that writes
into the folder removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such locks: there the last of two writers wins
    fcntl = None

# How long a run waits for another one that writes the same output. Writing takes seconds, computing may have taken
# hours.
LOCK_SECONDS = 60.0
_LOCK_SUFFIX = ".malis-lock"
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


@contextlib.contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`, which becomes `path` at the end, or vanishes where anything goes wrong."""
    check_file(path, force=force)
    target = followed(path)
    with locked(target), naming_full_disks(path):
        check_file(path, force=force)
        temporary = beside(target)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # the name must not reach the disk before the data
            check_file(path, force=force)
            os.replace(temporary, target)
        finally:
            with uninterrupted():
                temporary.unlink(missing_ok=True)


def followed(path: Path) -> Path:
    """Return what a symbolic link points to: an output replaces that, as cp does, and not the link."""
    return path.resolve() if path.is_symlink() else path


def check_file(path: Path, *, force: bool) -> None:
    """Raise where a file cannot be written."""
    check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists: --force replaces it")


def check_folder(path: Path) -> None:
    """Raise where nothing can be written under a name."""
    if path.is_symlink() and not path.exists():
        target = path.resolve()
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{path} links to {target}, and {target.parent} is no folder")
    folder = followed(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: {path.name} cannot be written there")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to: {path.name} needs that")


def check_link(path: Path, *, force: bool) -> None:
    """Raise for a symbolic link to nothing, which is more likely a mistake than a wish."""
    if path.is_symlink() and not path.exists() and not force:
        raise FileExistsError(f"{path} links to {path.resolve()}, which does not exist: --force writes there")


def beside(path: Path) -> Path:
    """Return a temporary name in the folder of `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial{path.suffix}")


def backup_of(path: Path) -> Path:
    """Return the name that a folder has while another takes its place."""
    return path.with_name(f".{path.name}.replaced{path.suffix}")


def put_folder(temporary: Path, target: Path) -> None:
    """Give a folder its name; what had it vanishes, or gets it back where this fails."""
    backup = backup_of(target)
    with uninterrupted():
        if not target.exists():
            temporary.rename(target)
            return
        target.rename(backup)
        try:
            temporary.rename(target)
        except BaseException:
            backup.rename(target)
            raise
        shutil.rmtree(backup, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, if there is one, whatever signal comes meanwhile."""
    with uninterrupted():
        shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------------
# Locks, and what killed runs left
# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, target: Path | None = None) -> Iterator[None]:
    """Be the only run that writes `path`; `target` is the folder that is replaced where it lies deeper.

    Raises BlockingIOError where another run holds the lock for longer than `LOCK_SECONDS`.
    """
    if fcntl is None:
        yield
        return
    lock = path.with_name(f".{path.name}{_LOCK_SUFFIX}")
    until = time.monotonic() + LOCK_SECONDS
    try:
        while (descriptor := _try_lock(lock)) is None:
            if time.monotonic() > until:
                raise BlockingIOError(
                    f"{path} is being written by another run of malis, which holds {lock.name}: try again when it has "
                    "ended"
                )
            time.sleep(0.05)
    except _NoLocks:
        lock.unlink(missing_ok=True)
        yield
        return
    try:
        _restore(path, _target_in(lock))
        os.pwrite(descriptor, os.fsencode(target or path), 0)
        _sweep(path.parent)
        yield
    finally:
        with uninterrupted():
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(descriptor)


class _NoLocks(OSError):
    """The file system has no locks."""


def _try_lock(lock: Path) -> int | None:
    """Return a descriptor of the locked file, or None where another run holds it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise _NoLocks from error
    # The run that held the lock removes the file: what was locked here may have no name any more.
    try:
        same = os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder."""
    for lock in folder.glob(f".*{_LOCK_SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = _try_lock(lock)
            if descriptor is None:
                continue
            try:
                _restore(lock.with_name(lock.name[1 : -len(_LOCK_SUFFIX)]), _target_in(lock))
                lock.unlink()
            finally:
                os.close(descriptor)


def _target_in(lock: Path) -> Path | None:
    text = lock.read_bytes()
    return Path(os.fsdecode(text)) if text else None


def _restore(path: Path, target: Path | None) -> None:
    """Remove the temporary names of a run that was killed, and finish or undo its replacement of a folder."""
    for left in path.parent.glob(f".{_escaped(path.name)}.????????????.partial{_escaped(path.suffix)}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    if target is not None and (backup := backup_of(target)).is_dir():
        if target.exists():
            shutil.rmtree(backup, ignore_errors=True)
        else:
            backup.rename(target)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# ---------------------------------------------------------------------------------------------------------------------
# Signals and full disks
# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end of the block; keep such blocks short.

    Libraries that write from threads of their own (zarr) go on writing when an exception leaves them: what they write
    must be complete before it can be removed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not None and handler != signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def naming_full_disks(path: Path) -> Iterator[None]:
    """Say which output did not fit where the disk or a quota is full."""
    try:
        yield
    except OSError as error:
        # NumPy says how much it could write, and not why.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and not _SHORT_WRITE.fullmatch(str(error)):
            raise
        raise OSError(f"{path} does not fit: no space left on the disk of {path.parent}") from error
