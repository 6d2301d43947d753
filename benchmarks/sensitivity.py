"""How sensitive each layer is, against the arithmetic behind the layers: python benchmarks/sensitivity.py [--images N]

The arithmetic of a layer's K is what the whole network takes for the same images, compiled, in the same batches and
the same process, times the share of its multiply-adds that lies behind the layer. Weights are random: time does not
depend on them.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from lab3.base.backend import load_backend

load_backend("auto")

from lab3.base.graph import flatten_model
from lab3.inputs.architectures import build_model
from lab3.inputs.preprocess import Preprocessing
from lab3.pruning.anatomy import examine_model
from lab3.pruning.compact import measure_cost
from lab3.pruning.joint import JointNetwork
from lab3.pruning.layers import prunable_layers
from lab3.pruning.rank import PruneStep


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--levels", type=int, default=13)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    model = build_model("vgg16")
    images_nhwc = np.random.default_rng(0).integers(0, 256, (arguments.images, 32, 32, 3), np.uint8)
    anatomies = [examine_model(model, layer.name) for layer in prunable_layers(model)]
    total = measure_cost(model, (32, 32, 3)).multiply_adds
    behind = np.array([_behind(model, each.layer.name) for each in anatomies]) / total
    network, nothing, preprocess = JointNetwork(anatomies), [[] for _ in anatomies], Preprocessing()
    plans = {
        number: [
            PruneStep(k, tuple(range(k)))
            for k in np.linspace(0, each.n_channels - 1, arguments.levels).astype(int).tolist()
        ]
        for number, each in enumerate(anatomies)
    }
    start = time.perf_counter()
    network.predict_alone(
        images_nhwc[:250], preprocess, {number: steps[:1] for number, steps in plans.items()}, nothing
    )
    compile_s = time.perf_counter() - start
    ratios = []
    for repeat in range(arguments.repeats):
        whole_s = _timed(lambda: network.logits(images_nhwc, preprocess, nothing))
        alone_s = _timed(lambda: network.predict_alone(images_nhwc, preprocess, plans, nothing))
        whole_s = (whole_s + _timed(lambda: network.logits(images_nhwc, preprocess, nothing))) / 2
        arithmetic_s = whole_s * behind.sum() * arguments.levels
        ratios.append(alone_s / arithmetic_s)
        print(
            f"{repeat}: {len(anatomies)} layers x {arguments.levels} K x {arguments.images} images in {alone_s:.1f} s; whole "
            f"network once {whole_s:.2f} s; behind the layers {behind.sum():.2f} networks, {arithmetic_s:.1f} s; ratio "
            f"{ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"median ratio {np.median(ratios):.2f}; first calls, with compilation, {compile_s:.1f} s for 250 images at one K"
    )


def _timed(run) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _behind(model, name: str) -> int:  # type: ignore[no-untyped-def]
    """Multiply-adds of what reads the layer's channels and all that follows, in a network that is one chain."""
    import keras

    graph = flatten_model(model)
    index = next(i for i, step in enumerate(graph.steps) if getattr(step.layer, "name", None) == name)
    layer = graph.steps[index].layer
    inputs = keras.Input(layer.output.shape[1:])
    x = inputs
    for step in graph.steps[index + 1 :]:
        x = step.layer(x)
    return measure_cost(keras.Model(inputs, x), layer.output.shape[1:]).multiply_adds


if __name__ == "__main__":
    main()
