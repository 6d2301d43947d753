"""A network's and its optimiser's state after each epoch of training, durable, so that a killed training goes on."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab3.base.files import replacing, sha256_file
from lab3.base.reading import reading


class Checkpoints:
    """One file an epoch in `folder`, which is made with the first; `sha256s` are their hashes by epoch.

    Not Keras's own weights file: that leaves out the state of random layers, and training would go on otherwise.
    """

    def __init__(self, folder: Path, sha256s: Mapping[int, str] | None = None) -> None:
        self._folder = folder
        self.sha256s = dict(sha256s or {})

    def save(self, model: Any, epoch: int) -> None:
        """Keep the state of the compiled `model` after `epoch`, counted from 1."""
        from keras.ops import convert_to_numpy

        self._folder.mkdir(exist_ok=True)
        with replacing(self._path(epoch)) as temporary, temporary.open("wb") as file:
            np.savez(file, *(np.asarray(convert_to_numpy(variable)) for variable in _variables(model)))
        self.sha256s[epoch] = sha256_file(self._path(epoch))

    def load(self, model: Any, epoch: int) -> None:
        """Put the compiled `model` in its state after `epoch`. Raises `RunStateError` if that cannot be read."""
        model.optimizer.build(model.trainable_variables)
        variables, path = _variables(model), self._path(epoch)
        with reading(path):
            if sha256_file(path) != self.sha256s.get(epoch):
                raise ValueError("it is not what epochs.jsonl says was written")
            with path.open("rb") as file, np.load(file, allow_pickle=False) as states:
                for variable, name in zip(variables, states.files, strict=True):
                    variable.assign(states[name])

    def keep(self, epochs: Collection[int]) -> None:
        """Remove the files of all other epochs."""
        kept = {self._path(epoch) for epoch in epochs}
        for path in self._folder.glob("epoch-*.npz"):
            if path not in kept:
                path.unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:04}.npz"


def _variables(model: Any) -> list[Any]:
    """All that training changes, metrics aside."""
    return [*model.variables, *model.optimizer.variables]
