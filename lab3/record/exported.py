"""`compact/export-FORMAT.json`: an exported model, and how its predictions were compared."""

from dataclasses import asdict, dataclass
from pathlib import Path

from lab3.base.files import encode_json
from lab3.record.manifest import read_signed, signed


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`file` in the folder of the compact model, whose `.keras` file had the SHA-256 `source`.

    It takes float images of `input_shape`, whose first size is that of a batch, with (pixel / scale - mean) / std done.
    Of `n_images` images `n_equal` are predicted as Keras does and `n_tied` are the others, whose two best scores differ
    by rounding alone; `largest_difference` is that of an output, as a share of the largest, at most `tolerance`.
    """

    run_id: str
    created_at: str
    lab3: str
    versions: dict[str, str]
    format: str
    file: str
    sha256_of_file: str
    n_bytes: int
    source: str
    input_shape: tuple[int | None, ...]
    input_dtype: str
    scale: float
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    n_images: int
    n_equal: int
    n_tied: int
    correct: int
    largest_difference: float
    tolerance: float

    def encode(self) -> bytes:
        """The file, which ends with the checksum of all else in it."""
        return encode_json(signed(asdict(self)))


def record_name(format: str) -> str:
    """The name of the record of an export.

    >>> record_name("onnx")
    'export-onnx.json'
    """
    return f"export-{format}.json"


def read_exports(folder: Path) -> list[Exported]:
    """The exports of a compact model. Raises `RunStateError` if a record is damaged."""
    paths = sorted(folder.glob(record_name("*")))
    return [read_signed(Exported, path, "export it again with `lab3 export`") for path in paths]
