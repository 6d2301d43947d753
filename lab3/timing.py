"""How long parts of a run take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(elapsed: dict[str, float], name: str) -> Iterator[None]:
    """Store the seconds spent inside as `elapsed[name]`."""
    start = time.perf_counter()
    yield
    elapsed[name] = round(time.perf_counter() - start, 3)
