"""Untrusted files and texts: a hash, and words that are safe to print."""

import hashlib
import re
from pathlib import Path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_line(error: Exception) -> str:
    """What a library says of a file, in one line; names in it can be the file's own."""
    # Keras sets parts of its messages in bold, and tells a layer's whole configuration before the reason.
    text = re.sub(r"\x1b\[\d*m", "", str(error)).rpartition("Exception encountered: ")[2]
    text = " ".join(text.split()) or type(error).__name__
    text = text if len(text) <= 300 else f"{text[:140]} ... {text[-155:]}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def printable(text: str) -> str:
    """untrusted `text`, such as the name of a layer, in one line: what would steer a terminal is escaped.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
