"""The end of a run: hashes of all its files in the manifest, then the summary."""

import hashlib
from collections.abc import Mapping
from typing import Any

from lab3.files import write_atomically
from lab3.manifest import hash_files
from lab3.rundir import RunDir, encode_json


def finish_run(run: RunDir, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write the manifest with `files`, the SHA-256 of every file by name, then `summary.json`, which ends the run.

    The summary is hashed before it is there: a finished run always has hashes, and all of them.
    """
    content = encode_json(summary)
    files = {**hash_files(run.path), run.summary_json.name: hashlib.sha256(content).hexdigest()}
    run.write_json(run.manifest_json, {**manifest, "files": files})
    write_atomically(run.summary_json, content)
