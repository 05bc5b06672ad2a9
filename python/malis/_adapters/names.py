"""Names of the labels and the affinities in messages: those of the function that the user called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Names(NamedTuple):
    """What the user calls the labels and the affinities."""

    labels: str = "seg_gt"
    output: str = "output"

    def renamed(self, message: str, others: Names) -> str:
        """Put these names into a message that begins with one of the others."""
        for other, name in zip(others, self, strict=True):
            if message.startswith(other + " "):
                return name + message[len(other) :]
        return message

    @contextmanager
    def in_errors(self, others: Names | None = None) -> Iterator[None]:
        """Put these names into the messages of a `ValueError` from inside, in place of the others (of the core)."""
        try:
            yield
        except ValueError as error:
            raise ValueError(self.renamed(str(error), others or CORE_NAMES)) from None


CORE_NAMES = Names("seg", "aff")
