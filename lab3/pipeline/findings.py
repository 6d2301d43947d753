"""What a check of a run's folder finds."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab3.errors import Lab3Error

# What a file that holds anything at all can lead to.
_UNEXPECTED = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, csv.Error,
)  # fmt: skip


@dataclass
class Verified:
    """What `verify_run` found: `problems` in words; `remarks` on what could not be checked.

    `n_counted` is the number of points in the journal, or of epochs where the run only trained; `n_files` that of files
    held against a hash.
    """

    run_id: str
    is_finished: bool
    n_counted: int = 0
    unit: str = "point"
    n_files: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        state = "whole" if self.is_finished else "unfinished"
        if self.problems:
            state = _count(len(self.problems), "problem")
        notes = [f"  {problem}" for problem in self.problems] + [f"  note: {remark}" for remark in self.remarks]
        return "\n".join(
            [f"{self.run_id}: {state}, {_count(self.n_counted, self.unit)}, {_count(self.n_files, 'file')}", *notes]
        )

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """What cannot be read is a problem; the checks that follow go on."""
        try:
            yield
        except Lab3Error as error:
            self.problems.append(str(error))
        except _UNEXPECTED as error:
            self.problems.append(f"{name} is not as lab3 writes it: {type(error).__name__}: {error}")


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit if n == 1 else f'{unit}s'}"
