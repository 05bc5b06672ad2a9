"""Fuzzing for as long as is wanted: random calls of every function, and damaged files for every reader.

    python tests/fuzz --seconds 120              # from a checkout, with the package installed
    python tests/fuzz --seconds 36000 --jobs 4   # a night
    python tests/fuzz --only calls --seed 17 --batches 1   # one batch again

Batches of examples run in processes of their own, so that a crash or a call that never ends costs one batch and not the
run. Batch number n has the seed `--seed` + n, and the seed makes the batch: what fails is printed with the command that
repeats it, shrunk to a small example by Hypothesis where it was an exception.

Under sanitizers (see docs/reliability.md) the same command runs with their libraries preloaded.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import faulthandler
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUBJECTS = ("calls", "files")
EXAMPLES = {"calls": 150, "files": 400}
# A batch takes seconds; under sanitizers on a busy machine some minutes.
BATCH_LIMIT = 900


def run_batch(subject: str, seed: int, examples: int) -> collections.Counter[str]:
    """Run one batch in this process; returns how often what was called."""
    sys.path.insert(0, str(HERE))
    import hypothesis
    from hypothesis import strategies as st

    faulthandler.enable()
    faulthandler.dump_traceback_later(BATCH_LIMIT - 10, exit=True)
    # Damaged files and extreme numbers make NumPy and the readers warn; what counts is what comes out.
    warnings.simplefilter("ignore")
    counts: collections.Counter[str] = collections.Counter()
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    if subject == "calls":
        import calls

        def example(data: st.DataObject) -> None:
            problem = calls.Problem(data.draw)
            for function in calls.FUNCTIONS:
                counts[f"{function}: {'result' if calls.call(function, problem) else 'error'}"] += 1

        hypothesis.seed(seed)(settings(hypothesis.given(st.data())(example)))()
    else:
        import readers

        files = readers.Files()

        def damaged(data: st.DataObject) -> None:
            counts["reader: " + ("result" if readers.call(files, data.draw) else "error")] += 1

        try:
            hypothesis.seed(seed)(settings(hypothesis.given(st.data())(damaged)))()
        finally:
            files.close()
    return counts


def start_batch(subject: str, seed: int, examples: int) -> tuple[collections.Counter[str], str]:
    """Run one batch in a process of its own; returns the counts, and what went wrong if anything did."""
    command = [sys.executable, str(HERE), "--batch", subject, "--seed", str(seed), "--examples", str(examples)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BATCH_LIMIT, env=environment)
    except subprocess.TimeoutExpired as error:
        return collections.Counter(), f"{' '.join(command)}\nhas not ended after {BATCH_LIMIT} s\n{error.stderr}"
    if done.returncode != 0:
        return (
            collections.Counter(),
            f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr[:3000]}\n...\n{done.stderr[-4000:]}",
        )
    return collections.Counter(json.loads(done.stdout.splitlines()[-1])), ""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description="Random calls and damaged files.")
    parser.add_argument("--seconds", type=float, default=120, help="for how long (120)")
    parser.add_argument("--batches", type=int, default=10**9, help="at most so many batches")
    parser.add_argument("--only", choices=SUBJECTS, help="only functions, or only files")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch (0)")
    parser.add_argument("--jobs", type=int, default=1, help="batches at once (1)")
    parser.add_argument("--examples", type=int, help="per batch")
    parser.add_argument("--batch", choices=SUBJECTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        print(json.dumps(run_batch(args.batch, args.seed, args.examples)))
        return 0

    # Three batches of calls for one of files: there are more functions than formats.
    subjects = [args.only] if args.only else ["calls", "files", "calls", "calls"]
    counts: collections.Counter[str] = collections.Counter()
    problems: list[str] = []
    start, batch = time.monotonic(), 0

    def work(number: int) -> None:
        subject = subjects[number % len(subjects)]
        of_batch, problem = start_batch(subject, args.seed + number, args.examples or EXAMPLES[subject])
        counts.update(of_batch)
        if problem:
            problems.append(problem)
            print(problem, file=sys.stderr, flush=True)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        running: set[concurrent.futures.Future[None]] = set()
        while batch < args.batches and time.monotonic() - start < args.seconds:
            running.add(pool.submit(work, batch))
            batch += 1
            if len(running) >= args.jobs:
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    future.result()
    for name, count in sorted(counts.items()):
        print(f"{count:10,}  {name}")
    print(
        f"{sum(counts.values()):,} calls in {batch} batches, seeds {args.seed} to {args.seed + batch - 1}, "
        f"{time.monotonic() - start:.0f} s: {len(problems)} batches failed"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
