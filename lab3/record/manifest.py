"""What a run was made with: settings, versions, machine, commit, hashes."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import lab3
from lab3.base.backend import backend_versions
from lab3.base.files import encode_json, sha256_file
from lab3.base.reading import Value, differences, parse, reading

Kind = Literal["sweep", "train", "compress"]
# Views of a run that `lab3 report` makes from its folder.
REPORTS = ("report.html", "report.json", "report.md")
# Written while a run is worked on and when a job ends: they tell of the work, not of its results.
_OF_WORK = ("manifest.json", "attempts.jsonl", "job.json")
# Nothing else of the environment is kept: the rest can hold secrets.
_VARIABLES = (
    "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "XLA_FLAGS", "LAB3_ALLOW_TF32", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
_PACKAGES = ("numpy", "wandb", "matplotlib", "pillow", "h5py", "pydantic")
_version = cache(version)


@dataclass(frozen=True)
class Source:
    """Images and the SHA-256 of their file, or of the arrays; `artifact` is the name of the W&B artifact, if any."""

    source: str
    sha256: str
    n_images: int
    artifact: str | None = None


@dataclass(frozen=True)
class ModelFile:
    """A model that was loaded; without path and hash one that is still to be trained."""

    path: str | None
    sha256: str | None
    artifact: str | None


@dataclass(frozen=True)
class TrainedModel:
    """The model that the run has trained."""

    path: str
    sha256: str
    artifact: ClassVar[None] = None


@dataclass(frozen=True)
class Sources:
    """Test and training images."""

    test: Source
    train: Source | None


@dataclass(frozen=True)
class Cost:
    """What all attempts at a run came to. `price`: hours times what an hour costs, where that is known."""

    attempts: int
    seconds: float
    device: str
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`, in the order of the file. What stands last comes when the run is finished."""

    kind: Kind
    lab3: str
    created_at: str
    seed: int
    model: ModelFile | TrainedModel
    data: Sources
    device: str
    versions: dict[str, str]
    machine: dict[str, str | int | None]
    environment: dict[str, str]
    git_commit: str | None
    config: dict[str, Any]
    attempts: tuple[str, ...] = ()
    finished_at: str | None = None
    elapsed_s: dict[str, float] | None = None
    cost: Cost | None = None
    files: dict[str, str] | None = None

    @staticmethod
    def decode(content: bytes) -> "Manifest":
        """The manifest in a file. Call it inside `reading`: it raises what JSON and pydantic do."""
        manifest = _decode_signed(Manifest, content)
        datetime.fromisoformat(manifest.created_at)
        return manifest

    def encode(self) -> bytes:
        """The file, which ends with the checksum of all else in it."""
        return encode_json(signed(self.as_json()))

    def as_json(self) -> dict[str, Any]:
        """What the file holds; what is not known yet is not there."""
        return {name: value for name, value in asdict(self).items() if value is not None or name == "git_commit"}

    def identity(self) -> dict[str, Any]:
        """What the points of its sweep depend on; training acts through the model's hash."""
        sweep = {name: self.config["sweep"][name] for name in ("schedule", "shortcut")}
        return self._identity({"model": self.model.sha256, "data": self.data.test.sha256}, self.config["prune"] | sweep)

    def training_identity(self) -> dict[str, Any]:
        """What the epochs of its training depend on."""
        settings = {"architecture": self.config["model"]["architecture"], **self.config["train"]}
        return self._identity({"data": self.data.train and self.data.train.sha256}, settings)

    def compression_identity(self) -> dict[str, Any]:
        """What the measurements of a compression depend on."""
        data = self.data
        inputs = {
            "model": self.model.sha256,
            "data": data.test.sha256,
            "training data": data.train and data.train.sha256,
        }
        return self._identity(inputs, self.config["prune"] | self.config["compress"])

    def _identity(self, inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        pixels = {name: self.config["data"][name] for name in ("color", "scale", "mean", "std")}
        versions = _computing(self.lab3, self.device, self.versions)
        return {**inputs, "settings": pixels | settings, "seed": self.seed, "versions": versions}

    def changed_versions(self, device: str) -> list[str]:
        """What computes here and is not what computed then, as `keras was '3.15.1', now '3.16.0'`."""
        then = _computing(self.lab3, self.device, self.versions)
        return differences(then, _computing(lab3.__version__, device, current_versions()))


def make_manifest(kind: Kind, config: Mapping[str, Any], device: str, model: ModelFile, data: Sources) -> Manifest:
    """The manifest of a run that starts now with these settings and inputs, computed on `device`."""
    started_at = now()
    return Manifest(
        kind=kind,
        lab3=lab3.__version__,
        created_at=started_at,
        seed=config["seed"],
        model=model,
        data=data,
        device=device,
        versions=current_versions(),
        machine={"system": platform.system(), "processor": platform.machine(), "n_cpus": os.cpu_count()},
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        git_commit=_git_commit(),
        config=dict(config),
        attempts=(started_at,),
    )


def name_inputs(model: ModelFile | TrainedModel, data: Sources) -> dict[str, tuple[str | None, str | None]]:
    """Place and SHA-256 of what a run is made from, by the name that messages have for it; None before it is known."""
    inputs = {"model": (model.path, model.sha256), "test data": (data.test.source, data.test.sha256)}
    return inputs | ({"training data": (data.train.source, data.train.sha256)} if data.train else {})


def signed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the SHA-256 of all else in it as its last member."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**content, "sha256": sha256(encode_json(content)).hexdigest()}


def read_signed(kind: type[Value], path: Path, remedy: str) -> Value:
    """What a file that `signed` closes says. Raises `RunStateError` with the `remedy` if it is missing or damaged."""
    with reading(path, remedy):
        return _decode_signed(kind, path.read_bytes())


def _decode_signed(kind: type[Value], content: bytes) -> Value:
    values = json.loads(content)
    if signed(values) != values:
        raise ValueError("its checksum does not fit")
    del values["sha256"]
    [value] = parse(kind, [values])
    return value


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run by its name in the run's folder.

    Left out are the manifest itself, what is of the work alone, compact models, which have hashes of their own,
    reports, which are made from the rest, what belongs to W&B's client, and what is hidden, which a kill can leave.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        name.as_posix(): sha256_file(folder / name)
        for name in names
        if name.parts[0] not in ("compact", "wandb", *_OF_WORK, *REPORTS)
        and not any(part.startswith(".") for part in name.parts)
    }


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _computing(lab3_version: str, device: str, versions: Mapping[str, str]) -> dict[str, str | None]:
    """All that a bit of a result can depend on besides settings and files: versions, backend, device."""
    found = {**versions, "lab3": lab3_version, "device": device}
    names = ("lab3", "device", "python", "numpy", "keras", "backend", str(found.get("backend")))
    return {name: found.get(name) for name in names}


def current_versions() -> dict[str, str]:
    """Python, Keras with its backend, and the packages that results or files can depend on."""
    packages = {name: _version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **backend_versions(), **packages}


def _git_commit() -> str | None:
    """The commit of the folder lab3 was called in; None outside git.

    Whether files differ from it is not asked: `git status` runs programs that the repository names.
    """
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
