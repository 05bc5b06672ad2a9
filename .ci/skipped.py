"""Fail where tests were skipped for any reason but what a machine lacks and missing real images.

Usage: python skipped.py report.xml, with the report of ``pytest --junitxml=report.xml``. All skips are listed.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter

# What a machine, its user or its Python may lack (root writes anywhere, and nobody else mounts a disk), and the public
# images that are kept beside a checkout. A package may not be missing: CI has to test every framework.
ACCEPTED = re.compile(
    r"no (CUDA|MPS) device|no real images|needs Python 3|cannot fork|on Linux only|root may write anywhere|needs root"
)


def main(report: str) -> int:
    """Return the exit status for a report."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    # A module that was skipped as a whole has its reason in the text.
    skips = [
        skipped.text or skipped.get("message", "")
        for case in cases
        for skipped in case.iter("skipped")
        if skipped.get("type") != "pytest.xfail"
    ]
    for reason, times in Counter(skips).most_common():
        print(f"skipped {times} x {reason}")
    refused = [reason for reason in skips if not ACCEPTED.search(reason)]
    if refused:
        print(f"{len(refused)} tests were skipped that need no special machine; packages are named by the extra 'test'")
    if len(skips) == len(cases):
        print("no test was run")
    return int(bool(refused) or len(skips) == len(cases))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
