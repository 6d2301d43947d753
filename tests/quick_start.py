"""What README.md says that the quick start prints."""

import doctest
import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()
PRINTED: str = re.findall(r"<!-- quick start -->\n```\n(.*?)```", README, re.DOTALL)[0]

_RUN_ID = re.compile(r"digits-\d{8}-\d{6}-[0-9a-f]{4}")
_NUMBER = re.compile(r"[+-]?\d[\d,.]*")


def assert_printed(expected: str, found: str) -> None:
    """Assert that `found` is `expected`, where any number is as good as another, and `...` stands for any lines."""
    want, got = (_NUMBER.sub("#", _RUN_ID.sub("ID", text)) for text in (expected, found))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(want, got, flags), f"expected\n{want}\nbut found\n{got}"
