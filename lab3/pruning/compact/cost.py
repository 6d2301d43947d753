"""What a model costs: parameters, multiply-adds, memory, time."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import compile_function, to_numpy, to_tensor
from lab3.base.graph import Step, Values, flatten_model, run_steps

_MIN_ROUNDS, _MAX_ROUNDS = 5, 200


@dataclass(frozen=True)
class Cost:
    """`parameters`: all numbers in the weights. `multiply_adds`: of one image, each multiplication with its addition
    counted once, in Conv2D, DepthwiseConv2D, SeparableConv2D, Conv2DTranspose and Dense; other layers have few and are
    not counted. `peak_activation_bytes`: the largest sum of tensors that are needed at the same time for one image, if
    each step writes a tensor of its own, in the order of the graph.
    """

    parameters: int
    multiply_adds: int
    peak_activation_bytes: int


@dataclass(frozen=True)
class Speed:
    """Medians over `n_rounds` of the seconds that a batch of `batch_size` images takes."""

    batch_size: int
    n_rounds: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Throughput."""
        return self.batch_size / self.seconds


def measure_cost(model: Any, image_shape: Sequence[int]) -> Cost:
    """The cost of a Sequential or Functional `model` for an image of `image_shape`, as `(H, W, C)`.

    The model is run once, on an image of zeros. Raises as `flatten_model` does.
    """
    graph = flatten_model(model)
    n_readers = Counter(slot for step in graph.steps for slot in set(step.input_slots))
    n_readers[graph.output_slot] += 1
    values: Values = {graph.input_slot: to_tensor(np.zeros((1, *image_shape), graph.input_dtype))}
    n_bytes = {graph.input_slot: to_numpy(values[graph.input_slot]).nbytes}
    multiply_adds, peak = 0, 0
    for step in graph.steps:
        values = run_steps([step], values)
        multiply_adds += _multiply_adds(step, values)
        n_bytes |= {slot: to_numpy(values[slot]).nbytes for slot in step.outputs}
        peak = max(peak, sum(n_bytes.values()))
        n_readers.subtract(set(step.input_slots))
        for slot in [slot for slot in n_bytes if n_readers[slot] == 0]:
            del n_bytes[slot], values[slot]
    return Cost(model.count_params(), multiply_adds, peak)


def _multiply_adds(step: Step, values: Values) -> int:
    """See `Cost`; of layers that are none of those, 0."""
    from keras import layers

    layer = step.layer
    if not isinstance(layer, layers.Layer):
        return 0
    before, after = values[step.input_slots[0]].shape, values[step.outputs[0]].shape
    if isinstance(layer, layers.SeparableConv2D):
        n_positions = int(np.prod(after[:-1]))
        return n_positions * sum(
            int(np.prod(kernel.shape)) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)
        )
    if isinstance(layer, layers.Conv2DTranspose):
        # Each number of the input is spread over a kernel for each filter.
        return int(np.prod(before)) * int(np.prod(layer.kernel.shape[:3]))
    if isinstance(layer, layers.DepthwiseConv2D):
        return int(np.prod(after)) * int(np.prod(layer.kernel.shape[:2]))
    if isinstance(layer, layers.Conv2D | layers.Dense):
        # Each number of the output is a product with one filter.
        return int(np.prod(after)) * int(np.prod(layer.kernel.shape[:-1]))
    return 0


def compare_speed(
    models: Sequence[Any], images: np.ndarray, *, budget_s: float = 4.0, on_round: Callable[[], None] = lambda: None
) -> list[Speed]:
    """The speed of each of `models`, compiled, on one batch of `images`, as the models take them.

    The models take turns, in one order and then in the other, so that what else the machine does meets all of them
    alike; the first two rounds do not count. At most `budget_s` seconds, at least five rounds.
    """
    functions = [_compiled(model) for model in models]
    batch = to_tensor(images)
    seconds: list[list[float]] = [[] for _ in models]
    start = time.perf_counter()
    for number in range(-2, _MAX_ROUNDS):
        on_round()
        if number == 0:
            start = time.perf_counter()
        elif number >= _MIN_ROUNDS and time.perf_counter() - start > budget_s:
            break
        order = range(len(models)) if number % 2 else reversed(range(len(models)))
        for index in order:
            before = time.perf_counter()
            to_numpy(functions[index](batch)[0])
            if number >= 0:
                seconds[index].append(time.perf_counter() - before)
    return [Speed(len(images), len(each), float(np.median(each))) for each in seconds]


def _compiled(model: Any) -> Callable[..., list[Any]]:
    graph = flatten_model(model)

    def run(images: Any) -> list[Any]:
        return [run_steps(graph.steps, {graph.input_slot: images})[graph.output_slot]]

    return compile_function(run)
