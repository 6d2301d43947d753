"""The end of a run: hashes of all its files in the manifest, then the summary."""

import hashlib
from collections.abc import Mapping
from typing import Any

from lab3.config import Config
from lab3.errors import RunStateError
from lab3.files import write_atomically
from lab3.manifest import hash_files
from lab3.rundir import RunDir, encode_json


def finish_run(run: RunDir, config: Config, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write the manifest with `files`, the SHA-256 of every file by name, then `summary.json`, which ends the run.

    The summary is hashed before it is there: a finished run always has hashes, and all of them. Raises `RunStateError`
    if the folder's configuration is no longer `config`.
    """
    if run.read_config() != config:
        raise RunStateError(
            f"{run.config_yaml} was changed while the run worked; put back what it was, and `lab3 resume {run.path}`"
        )
    content = encode_json(summary)
    files = {**hash_files(run.path), run.summary_json.name: hashlib.sha256(content).hexdigest()}
    run.write_manifest({**manifest, "files": files})
    write_atomically(run.summary_json, content)
