"""Exported models as other programs run them: ONNX Runtime and LiteRT, both on the CPU."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3.errors import ConfigError

Format = Literal["onnx", "litert"]
# The packages that write and run each format, by the names that pip has and by those of their modules.
_PACKAGES: dict[Format, dict[str, str]] = {
    "onnx": {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
    "litert": {"ai-edge-litert": "ai_edge_litert"},
}
FILES: dict[Format, str] = {"onnx": "model.onnx", "litert": "model.tflite"}


def check_packages(format: Format) -> dict[str, str]:
    """The versions of what writes and runs `format`. Raises `ConfigError` if something is not installed."""
    missing = [name for name, module in _PACKAGES[format].items() if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"--format {format} needs {' and '.join(_PACKAGES[format])}, got no {' and no '.join(missing)}; "
            f"pip install 'lab3[{format}]'"
        )
    return {name: version(name) for name in _PACKAGES[format]}


def open_exported(format: Format, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What the exported model gives for inputs as the Keras model takes them; both have the images along axis 0."""
    return _open_onnx(path) if format == "onnx" else _open_litert(path)


def _open_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    session: Any = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda inputs: np.asarray(session.run(None, {taken.name: inputs})[0])


def _open_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    interpreter: Any = import_module("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs: np.ndarray) -> np.ndarray:
        if tuple(interpreter.get_input_details()[0]["shape"]) != inputs.shape:
            interpreter.resize_tensor_input(taken["index"], inputs.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], inputs)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(given["index"]))

    interpreter.allocate_tensors()
    return run
