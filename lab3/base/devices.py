"""GPUs: how many a backend sees, and that float32 on them is float32, the same in every run."""

import os
from collections.abc import Callable
from functools import cache

ALLOW_TF32 = "LAB3_ALLOW_TF32"


def prepare_environment() -> None:
    """Set what backends read when they are imported: no process takes a GPU's whole memory, operations repeat.

    What somebody has set stays.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@cache
def use_gpus(backend: str) -> int:
    """How many GPUs the backend sees; where there are some, matrices are multiplied in full float32, repeatably.

    TF32, which has 10 bits of a float32's 23, is for those who set LAB3_ALLOW_TF32=1; the manifest keeps that.
    """
    return _USE[backend](os.environ.get(ALLOW_TF32) == "1")


def _use_tensorflow(allows_tf32: bool) -> int:
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    for gpu in gpus:
        # The whole GPU's memory otherwise goes to the first process.
        tensorflow.config.experimental.set_memory_growth(gpu, True)
    tensorflow.config.experimental.enable_tensor_float_32_execution(allows_tf32)
    if gpus:
        tensorflow.config.experimental.enable_op_determinism()
    return len(gpus)


def _use_jax(allows_tf32: bool) -> int:
    import jax

    n_gpus = int(sum(device.platform != "cpu" for device in jax.devices()))
    if n_gpus and not allows_tf32:
        jax.config.update("jax_default_matmul_precision", "highest")
    return n_gpus


def _use_torch(allows_tf32: bool) -> int:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allows_tf32
    torch.backends.cudnn.allow_tf32 = allows_tf32
    n_gpus = int(torch.cuda.device_count())
    if n_gpus:
        torch.use_deterministic_algorithms(True, warn_only=True)
    return n_gpus


_USE: dict[str, Callable[[bool], int]] = {"tensorflow": _use_tensorflow, "jax": _use_jax, "torch": _use_torch}
