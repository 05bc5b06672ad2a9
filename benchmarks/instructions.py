"""Guard against slower code: instructions per edge, counted by callgrind, against those of instructions.json.

    python benchmarks/instructions.py              compare; exit status 1 if a count has grown beyond its bound
    python benchmarks/instructions.py --update     count anew and store

Unlike time, the number of instructions of one thread does not depend on what else the machine does. It does depend on
the compiler, so the bound is generous: 15 % above the stored count, 40 % where another compiler or version is used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "instructions.json"

WHAT = ("loss", "pairs", "components", "unconstrained")
SIZE = 32
EDGES = 3 * SIZE**3
FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-pthread")  # those of a release build
BOUND, BOUND_OF_OTHER_COMPILER = 1.15, 1.40


class Skipped(Exception):
    """Nothing can be counted here."""


def compiler() -> list[str]:
    """Command of the C++ compiler, as the variable CXX names it."""
    command = shlex.split(os.environ.get("CXX", "c++"))
    if not command or shutil.which(command[0]) is None:
        raise Skipped(f"there is no C++ compiler {' '.join(command)!r}")
    return command


def describe(command: list[str]) -> str:
    """Name and version of a compiler, by its own words, without the name it was called by (c++, g++-12)."""
    text = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    return text.splitlines()[0].removeprefix(Path(command[0]).name).strip()


def build(command: list[str], program: Path) -> None:
    # Instantiates what it calls in place of building the whole library.
    sources = [ROOT / "benchmarks" / "micro.cpp"]
    sources += [ROOT / "cpp" / "src" / f"{name}.cpp" for name in ("cores", "labels", "parallel")]
    include = ROOT / "cpp" / "include"
    command = [*command, *FLAGS, "-DMALIS_INSTANTIATE", f"-I{include}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)


def run(program: Path, what: str, repetitions: int) -> int:
    """Instructions of a whole run on one thread."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [str(program), str(SIZE), "1", str(repetitions), what]
    result = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected\s*:\s*(\d+)", result.stderr)
    if result.returncode != 0 or found is None:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{result.stdout}{result.stderr}")
    return int(found[1])


def count(command: list[str]) -> dict[str, float]:
    """Instructions per edge of one call; making the input is not part of it."""
    if shutil.which("valgrind") is None:
        raise Skipped("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "micro"
        build(command, program)
        return {what: round((run(program, what, 2) - run(program, what, 1)) / EDGES, 2) for what in WHAT}


def compare(stored: dict[str, Any], measured: dict[str, float], used_compiler: str) -> list[str]:
    """Print the counts side by side and return what has grown beyond its bound."""
    same = stored["compiler"] == used_compiler
    bound = BOUND if same else BOUND_OF_OTHER_COMPILER
    if not same:
        print(f"counts were stored with {stored['compiler']}, this is {used_compiler}: the bound is {bound:g}")
    slower = []
    for what, now in measured.items():
        before = stored["instructions_per_edge"].get(what)
        if before is None:
            slower.append(f"{what} has no stored count: run with --update")
            continue
        print(f"{what:15} {now:8.2f} instructions per edge, stored {before:8.2f}, {now / before:5.2f} x")
        if now > bound * before:
            slower.append(f"{what} takes {now / before:.2f} x the stored instructions, the bound is {bound:g} x")
        elif same and now < before / BOUND:
            print(f"{what} has become faster: --update keeps it so")
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="store the counts of this machine")
    parser.add_argument("--strict", action="store_true", help="exit status 2 where nothing can be counted")
    options = parser.parse_args()
    try:
        stored = None
        if not options.update:
            if not STORED.exists():
                raise Skipped(f"{STORED.name} is not there: run with --update")
            stored = json.loads(STORED.read_text(encoding="utf-8"))
            if stored["machine"] != platform.machine():
                raise Skipped(f"counts were stored on {stored['machine']}, this is {platform.machine()}")
        command = compiler()
        measured = count(command)
    except Skipped as reason:
        print(f"skipped: {reason}")
        return 2 if options.strict else 0
    used = describe(command)
    if stored is not None:
        slower = compare(stored, measured, used)
        print("\n".join(slower) if slower else "no count beyond its bound")
        return 1 if slower else 0
    content = {
        "compiler": used,
        "flags": list(FLAGS),
        "machine": platform.machine(),
        "volume": f"{SIZE}^3, 3 offsets, 1 thread",
        "instructions_per_edge": measured,
    }
    STORED.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(STORED.read_text(encoding="utf-8"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
