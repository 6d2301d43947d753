"""Several layers pruned together, and the choice of channels for a budget."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

from lab3.base.graph import list_layers
from lab3.pruning.anatomy import examine_model
from lab3.pruning.budget import Ks, PlanStep, choose_channels, longest_prefix
from lab3.pruning.joint import JointNetwork
from lab3.pruning.layers import prunable_layers
from lab3.pruning.rank import PruneStep
from tests.reference import shake


def residual_model() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    branch = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name="branch")(first)
    branch = keras.layers.ReLU()(keras.layers.BatchNormalization()(branch))
    joined = keras.layers.Add()([first, branch])
    last = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="last")(joined)
    pooled = keras.layers.GlobalAveragePooling2D()(last)
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(pooled)
    model = shake(keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(hidden)))
    # Predictions that fall on all classes show more.
    scores = model.layers[-1]
    hidden_nu = keras.ops.convert_to_numpy(keras.Model(inputs, hidden)(make_images(), training=False))
    scores.bias.assign(-np.median(np.asarray(hidden_nu) @ np.asarray(scores.kernel), axis=0))
    return model


def make_images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(70, 8, 8, 3)).astype(np.float32)


def masked_twin(model: Any, pruned: dict[str, list[int]]) -> Any:
    """The residual model with masks where the channels are read, built from the same layers."""
    layers = {layer.name: layer for layer in model.layers}

    def masked(name: str, tensor: Any) -> Any:
        mask_c = np.ones(tensor.shape[-1], np.float32)
        mask_c[pruned.get(name, [])] = 0
        return tensor * mask_c

    of = {kind: [layer for layer in model.layers if isinstance(layer, kind)] for kind in (
        keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Dense)}  # fmt: skip
    inputs = keras.Input((8, 8, 3))
    first = masked("first", layers["first"](inputs))
    branch = of[keras.layers.ReLU][0](of[keras.layers.BatchNormalization][0](layers["branch"](first), training=False))
    last = masked("last", layers["last"](first + masked("branch", branch)))
    hidden = masked("hidden", layers["hidden"](keras.ops.mean(last, axis=(1, 2))))
    return keras.Model(inputs, of[keras.layers.Dense][-1](hidden))


@pytest.fixture(scope="module")
def network() -> tuple[Any, JointNetwork, list[str], np.ndarray]:
    model = residual_model()
    found = prunable_layers(model)
    indices = [next(i for i, each in enumerate(list_layers(model)) if each is layer) for layer in found]
    joint = JointNetwork([examine_model(model, index) for index in indices])
    return model, joint, [layer.name for layer in found], make_images()


def test_joint_predictions_are_those_of_a_masked_network(network: Any) -> None:
    model, joint, names, images_nhwc = network
    assert names == ["first", "branch", "last", "hidden"]
    seen = []
    plans: tuple[list[list[int]], ...] = (
        [[], [], [], []],
        [[0, 3], [1], [0, 1, 2, 5], [4]],
        [[], [0, 1, 2, 3, 4], [], []],
    )
    for pruned in plans:
        twin = masked_twin(model, dict(zip(names, pruned, strict=True)))
        expected_n = np.asarray(keras.ops.convert_to_numpy(twin(images_nhwc))).argmax(axis=1)
        found_n = joint.logits(images_nhwc, lambda block: block, pruned, batch_size=32).argmax(axis=1)
        assert found_n.tolist() == expected_n.tolist()
        seen.append(expected_n.tolist())
    assert len(set(seen[0])) == 4 and seen[0] != seen[1] != seen[2]


def test_each_layer_alone_is_pruned_beside_what_is_pruned_already(network: Any) -> None:
    model, joint, names, images_nhwc = network
    base: list[list[int]] = [[2], [], [7], []]
    plans = {0: [PruneStep(2, (2, 4))], 2: [PruneStep(1, (7,)), PruneStep(3, (0, 1, 7))], 3: [PruneStep(1, (0,))]}
    found = joint.predict_alone(images_nhwc, lambda block: block, plans, base, batch_size=32)
    assert {number: each.shape for number, each in found.items()} == {0: (1, 70), 2: (2, 70), 3: (1, 70)}
    for number, steps in plans.items():
        for step, found_n in zip(steps, found[number], strict=True):
            pruned = [*base[:number], list(step.pruned_channels), *base[number + 1 :]]
            twin = masked_twin(model, dict(zip(names, pruned, strict=True)))
            expected_n = np.asarray(keras.ops.convert_to_numpy(twin(images_nhwc))).argmax(axis=1)
            assert found_n.tolist() == expected_n.tolist()


class Additive:
    """Each layer's channels cost what a list says, and together a little more."""

    def __init__(self, losses: list[list[float]], saved: list[float]) -> None:
        self.losses, self.saved, self.n_joint = losses, saved, 0

    def lost(self, ks: Ks) -> float:
        self.n_joint += 1
        return self._lost(ks)

    def _lost(self, ks: Ks) -> float:
        return 1.05 * sum(sum(losses[:k]) for losses, k in zip(self.losses, ks, strict=True))

    def lost_alone(self, ks: Ks, levels: Any) -> dict[int, list[float]]:
        return {
            layer: [self._lost((*ks[:layer], k, *ks[layer + 1 :])) for k in found] for layer, found in levels.items()
        }

    def saved_per_channel(self, ks: Ks) -> list[float]:
        return self.saved

    def cost(self, ks: Ks) -> float:
        return 100.0 - sum(k * saved for k, saved in zip(ks, self.saved, strict=True))


def test_channels_are_chosen_by_accuracy_lost_for_cost_saved() -> None:
    rising = [0.001 * 1.2**n for n in range(20)]
    measure = Additive([rising, [0.002] * 10, [0.0] * 6], [2.0, 1.0, 0.0])
    plans = choose_channels(measure, [20, 10, 6], 0.05)
    assert plans[0] == PlanStep((0, 0, 0), 0.0, 100.0)
    for before, after in pairwise(plans):
        assert all(k <= later for k, later in zip(before.ks, after.ks, strict=True))
    best = plans[-1]
    # Nothing is saved by the last layer; of all other plans that keep the budget, none costs 2 % less.
    assert best.lost <= 0.05 and best.ks[2] == 0
    possible = [
        measure.cost((one, two, 0)) for one in range(20) for two in range(10) if measure._lost((one, two, 0)) <= 0.05
    ]
    assert best.cost <= min(possible) + 2.0
    assert measure.n_joint < 120
    assert len(plans) >= 7 and [plan.lost for plan in plans] == [measure._lost(plan.ks) for plan in plans]


@dataclass
class Limit:
    limit: int
    tried: list[int]

    def __call__(self, number: int) -> bool:
        self.tried.append(number)
        return number <= self.limit


def test_longest_prefix_needs_few_trials() -> None:
    for n, limit in ((0, 0), (1, 0), (1, 1), (64, 64), (100, 0), (100, 99)):
        tried: list[int] = []
        assert longest_prefix(n, Limit(limit, tried)) == limit
        assert len(tried) <= 14
