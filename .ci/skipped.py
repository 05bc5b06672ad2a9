"""Fail where tests were skipped because a package is missing: CI has to test every framework.

Usage: python skipped.py report.xml, with the report of ``pytest --junitxml=report.xml``. What is skipped because the
machine has no GPU, or because the data beside the checkout are not there, is listed and accepted.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter

MISSING_PACKAGE = re.compile(r"could not import|no module named|not installed", re.IGNORECASE)


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
    missing = [reason for reason in skips if MISSING_PACKAGE.search(reason)]
    if missing:
        print(f"{len(missing)} tests were skipped for a missing package: the extra 'test' has to name it")
    if len(skips) == len(cases):
        print("no test was run")
    return int(bool(missing) or len(skips) == len(cases))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
