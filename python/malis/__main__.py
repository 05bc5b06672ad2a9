"""The command `malis`, also as ``python -m malis``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 2 for bad input, or 130 when it was interrupted."""
    try:
        from malis.cli import run
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        print(f"malis: the command needs {package}: pip install {package}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("malis: interrupted", file=sys.stderr)
        return 130
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
