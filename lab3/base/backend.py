"""Keras's backend: loading it quietly, choosing the device, compiling functions of arrays.

TensorFlow is the default; `KERAS_BACKEND=jax` or `torch` selects another. Nothing else in lab3 asks which one it is.
"""

import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from lab3.base.arrays import blocks_of
from lab3.base.devices import prepare_environment, use_gpus
from lab3.errors import ConfigError
from lab3.vocabulary import Device

Axes = Mapping[int, Sequence[int]]
_NO_AXES: Axes = MappingProxyType({})


def load_backend(device: Device = "auto") -> str:
    """Import Keras and its backend, set up for `device`; returns the device in use, as `cpu` or `gpu`.

    `cpu` hides every GPU, so it must come before anything else imports Keras. Raises `ConfigError` for `gpu` where
    there is none, and for a backend that cannot be imported.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    prepare_environment()
    try:
        with _quiet_start(), _without_collector():
            keras = importlib.import_module("keras")
            n_gpus = count_gpus()
    except ImportError as error:
        name = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise ConfigError(
            f"the Keras backend {name!r} cannot be imported ({error}); install it or unset KERAS_BACKEND"
        ) from error
    if device == "gpu" and n_gpus == 0:
        raise ConfigError(
            f"--device gpu: {keras.backend.backend()} sees no GPU on this machine; use --device cpu or auto"
        )
    return "gpu" if n_gpus and device != "cpu" else "cpu"


def count_gpus() -> int:
    """GPUs that the backend sees."""
    import keras

    return use_gpus(keras.backend.backend())


def limit_threads(n_threads: int) -> None:
    """Have the backend compute on at most `n_threads` threads; it must come before the backend is imported."""
    # TensorFlow reads the first two, PyTorch and oneDNN the third, JAX the last; no other way serves all three.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC"):
        os.environ[name] = str(n_threads)


def seed_hidden_state(*seed: int) -> None:
    """Seed what the backend draws from beside Keras's own seed generators, whose state is among a model's variables.

    Only on PyTorch is there such a thing: `Dropout` without a seed there draws from PyTorch's global generator.
    """
    import keras

    if keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def backend_versions() -> dict[str, str]:
    """Versions of Keras and of its backend's package."""
    import keras

    name = keras.backend.backend()
    return {"keras": keras.__version__, "backend": name, name: importlib.import_module(name).__version__}


def compile_function(function: Callable[..., Any], free_axes: Axes = _NO_AXES) -> Callable[..., list[Any]]:
    """`function` of arrays, which returns a list of tensors, compiled by the backend; call it with either.

    It is traced once for each combination of input shapes, so give it blocks of few sizes. `free_axes`: by the number
    of an array, from either end, its axes that TensorFlow traces once for any length of them.
    """
    import keras

    return _COMPILERS[keras.backend.backend()](function, free_axes)


def compile_gradient(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The gradient of `function`, which returns one number, to its first argument, compiled."""
    import keras

    return _GRADIENTS[keras.backend.backend()](function)


def to_tensor(array: np.ndarray) -> Any:
    """`array` on the device."""
    import keras

    return keras.ops.convert_to_tensor(array)


def to_numpy(tensor: Any) -> np.ndarray:
    """`tensor` on the host."""
    import keras

    array: np.ndarray = keras.ops.convert_to_numpy(tensor)
    return array


def map_blocks(
    function: Callable[[np.ndarray], list[Any]], images_nhwc: np.ndarray, batch_size: int
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Call `function` on blocks of `batch_size` images; yields (rows, outputs on the host).

    The last block is filled up with copies of its last image, so that every call has the same shape, and cut
    afterwards.
    """
    for rows in blocks_of(len(images_nhwc), batch_size):
        block = fill_block(images_nhwc[rows], min(batch_size, len(images_nhwc)))
        yield rows, [to_numpy(output)[: rows.stop - rows.start] for output in function(block)]


def fill_block(block: np.ndarray, size: int) -> np.ndarray:
    """`block` with its last row repeated up to `size` rows."""
    if len(block) == size:
        return np.ascontiguousarray(block)
    return np.concatenate([block, np.repeat(block[-1:], size - len(block), axis=0)])


def fill_pairs(numbers: np.ndarray, size: int) -> np.ndarray:
    """At most `size` numbers, the last repeated up to one of few lengths where the backend compiles each length."""
    import keras

    if keras.backend.backend() == "tensorflow":
        return numbers
    # Two lengths an octave: at most a third is wasted.
    octave = 2 ** max(5, int(np.ceil(np.log2(len(numbers)))))
    return fill_block(numbers, min(size, octave * 3 // 4 if len(numbers) <= octave * 3 // 4 else octave))


def _compile_tensorflow(function: Callable[..., Any], free_axes: Axes = _NO_AXES) -> Callable[..., Any]:
    import tensorflow

    # TensorFlow counts tracings by the lines of code, and warns of a loop where every layer's function is traced once;
    # a partial has no lines and is counted for itself.
    compiled = tensorflow.function(partial(function), autograph=False, reduce_retracing=True)
    is_new = True

    def call(*arrays: Any) -> Any:
        nonlocal is_new
        tensors = [tensorflow.convert_to_tensor(array) for array in arrays]
        if is_new and free_axes:
            shapes = [tensor.shape.as_list() for tensor in tensors]
            for number, axes in free_axes.items():
                for axis in axes:
                    shapes[number][axis] = None
            compiled.get_concrete_function(*map(tensorflow.TensorSpec, shapes, [tensor.dtype for tensor in tensors]))
        is_new = False
        return compiled(*tensors)

    return call


def _compile_jax(function: Callable[..., Any], _free_axes: Axes = _NO_AXES) -> Callable[..., Any]:
    import jax

    compiled: Callable[..., Any] = jax.jit(function)
    return compiled


def _compile_torch(function: Callable[..., Any], _free_axes: Axes) -> Callable[..., Any]:
    import keras
    import torch

    def call(*arrays: np.ndarray) -> Any:
        with torch.no_grad():
            return function(*(keras.ops.convert_to_tensor(array) for array in arrays))

    return call


def _gradient_tensorflow(function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow

    def gradient(first: Any, *others: Any) -> list[Any]:
        with tensorflow.GradientTape() as tape:
            tape.watch(first)
            value = function(first, *others)
        return [tape.gradient(value, first)]

    return _compile_tensorflow(gradient)


def _gradient_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    gradient = jax.grad(function)
    return _compile_jax(lambda *arrays: [gradient(*arrays)])


def _gradient_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    import keras
    import torch

    def call(first: Any, *others: Any) -> list[Any]:
        watched = keras.ops.convert_to_tensor(first).detach().requires_grad_()
        return list(torch.autograd.grad(function(watched, *map(keras.ops.convert_to_tensor, others)), watched))

    return call


_GRADIENTS = {"tensorflow": _gradient_tensorflow, "jax": _gradient_jax, "torch": _gradient_torch}
_COMPILERS: Mapping[str, Callable[[Callable[..., Any], Axes], Callable[..., Any]]] = {
    "tensorflow": _compile_tensorflow,
    "jax": _compile_jax,
    "torch": _compile_torch,
}


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without looking for garbage, which takes a fifth of the time that loading modules does and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep TensorFlow's start-up notes off the terminal; show them after all if the start fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(saved, notes.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
