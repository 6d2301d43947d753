"""A tensor that loses units of its last axis, and what these hold in every image."""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from lab3.base.graph import Graph, Step
from lab3.errors import ModelError

_UNKNOWN_SIZE = 32  # rows and columns of an image where the model takes any: room for borders and what they surround
_ROUNDING = {"bfloat16": 2e-2, "float16": 2e-3}


@dataclass(frozen=True)
class Narrowed:
    """A tensor of U units on its last axis, some of which are lost.

    `channel_u`: the channel of the pruned layer that a unit is of, -1 where of none, int `(U,)`. `is_lost_u`: bool
    `(U,)`. `constant`: what the lost units hold in every image, float32, of a shape that broadcasts to `(1, ..., U)`;
    at other units it has no meaning. `rounding`: up to what share of the largest constant two of them are the same.
    """

    channel_u: np.ndarray
    is_lost_u: np.ndarray
    constant: np.ndarray
    rounding: float

    @property
    def rows(self) -> np.ndarray:
        """The constants of the lost units at every position, float64 `(P, lost)`."""
        rows: np.ndarray = self.constant.reshape(-1, self.constant.shape[-1])[:, self.is_lost_u].astype(np.float64)
        return rows

    @property
    def is_zero(self) -> bool:
        """True if every lost unit is 0 everywhere."""
        return not self.constant[..., self.is_lost_u].any()

    @property
    def is_uniform(self) -> bool:
        """True if each lost unit is the same at every position."""
        rows = self.rows
        return bool(np.ptp(rows, axis=0).max() <= self.rounding * np.abs(rows).max())


def rounding_of(graph: Graph) -> float:
    """See `Narrowed.rounding`: a few roundings of the shortest numbers that a layer of `graph` computes in."""
    dtypes = {getattr(step.layer, "compute_dtype", None) for step in graph.steps}
    return max(_ROUNDING.get(str(dtype), 1e-6) for dtype in dtypes)


def spread(constant: np.ndarray, tensor: Any) -> np.ndarray:
    """`constant` in the whole shape of one image's `tensor`."""
    return np.ascontiguousarray(np.broadcast_to(constant, (1, *(size or _UNKNOWN_SIZE for size in tensor.shape[1:]))))


def zeros_like(tensor: Any) -> np.ndarray:
    """Constants of 0 for `tensor`."""
    return np.zeros((1,) * (len(tensor.shape) - 1) + (tensor.shape[-1],), np.float32)


def refuse(step: Step, why: str, remedy: str = "prune another layer") -> NoReturn:
    """Raise `ModelError`: channels cannot be taken out because of `step`."""
    raise ModelError(
        f"a compact model must give exactly what the model with pruned channels gives, but layer {step.shown} {why}; "
        f"{remedy}, or keep the model as it is and its channels masked"
    )
