"""The check that every sweep makes before its first point: it passes on good cuts and catches wrong ones."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import lab3.base.graph
from lab3.base.backend import to_numpy
from lab3.errors import ModelError
from lab3.pruning.capture import capture
from lab3.pruning.rank import PruneStep
from lab3.pruning.selfcheck import SelfCheck, check_split
from lab3.pruning.split import split_model
from tests.graphs import sequential
from tests.reference import shake

STEPS = [PruneStep(k, tuple(range(k))) for k in range(8)]


class Louder(layers.Layer):
    """Random layers keep a state, which JAX does not let a compiled function change; this one has none."""

    def call(self, images: Any, training: bool = False) -> Any:
        return 3 * images if training else images


@pytest.fixture
def images_nhwc(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(300, 8, 8, 3)).astype(np.float32)


def check(model: Any, images_nhwc: np.ndarray, swap: tuple[int, int] | None = None, **settings: Any) -> SelfCheck:
    split = split_model(model, "pruned", **settings)
    weights_n = np.full(len(images_nhwc), 1 / len(images_nhwc))
    features = capture(split, images_nhwc, lambda x: x, weights_n=weights_n, batch_size=100).features
    if swap is not None:
        features[0][..., list(swap)] = features[0][..., list(reversed(swap))]
    return check_split(split, model, features, images_nhwc, lambda x: x, STEPS, batch_size=100)


@pytest.mark.parametrize("effect", ["remove", "zero_weights"])
def test_a_good_cut_says_what_was_compared(effect: str, images_nhwc: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    found = check(shake(sequential()), images_nhwc, effect=effect)
    assert (found.n_images, found.ks, found.n_tied) == (256, (0, 3, 5), 0)
    assert 0 <= found.largest_difference < 1e-5
    assert found.summary()["compared"] == "K=0, K=3, K=5"


def test_a_layer_that_trains_is_noticed(images_nhwc: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.utils.set_random_seed(0)
    model = shake(keras.Sequential([keras.Input((8, 8, 3)), Louder(), *sequential().layers]))

    def run_in_training(steps: Any, values: Any) -> Any:
        values = dict(values)
        for step in steps:
            args, kwargs = step.node.arguments.fill_in({key: values[slot] for key, slot in step.inputs})
            training = isinstance(step.layer, Louder)
            values[step.outputs[0]] = step.layer(*args, **{**kwargs, "training": training})
        return values

    monkeypatch.setattr("lab3.pruning.split.run_steps", run_in_training)
    with pytest.raises(ModelError, match=r"cut at layer 'pruned' must give .* at K=0 \d+ of 256 test images"):
        check(model, images_nhwc)


def test_a_wrong_constant_behind_a_normalisation_is_noticed(
    images_nhwc: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(0)
    model = shake(sequential())
    run_steps, normalisation = lab3.base.graph.run_steps, model.layers[3]

    # What a normalisation makes of 0 is taken for 0.
    def without_constants(steps: Any, values: Any) -> Any:
        found = run_steps(steps, values)
        for step in steps:
            if step.layer is normalisation and values[step.input_slots[0]].shape[0] == 1:
                found[step.outputs[0]] = keras.ops.zeros_like(found[step.outputs[0]])
                found |= run_steps([s for s in steps if s is not step and s.outputs[0] > step.outputs[0]], found)
        return found

    monkeypatch.setattr("lab3.pruning.split.run_steps", without_constants)
    with pytest.raises(ModelError, match=r"at K=[35] \d+ of 256 .* scores differ by [\d.e-]+ of the largest"):
        check(model, images_nhwc, effect="zero_weights", measured="output")


def test_a_permuted_channel_is_noticed(images_nhwc: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    with pytest.raises(ModelError, match=r"at K=0 \d+ of 256"):
        check(shake(sequential()), images_nhwc, swap=(1, 6))


def test_inference_is_inference_wherever_random_layers_stand(images_nhwc: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    augment = keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomZoom(0.2), layers.RandomContrast(0.3),
         layers.RandomBrightness(0.3, (-3, 3))]
    )  # fmt: skip
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="pruned")(augment(inputs))
    x = layers.AlphaDropout(0.4)(layers.GaussianDropout(0.4)(layers.SpatialDropout2D(0.4)(x)), training=True)
    x = layers.Dense(12, activation="relu")(layers.Flatten()(layers.RandomFlip()(x)))
    model = shake(keras.Model(inputs, layers.Dense(5)(layers.Dropout(0.5)(layers.GaussianNoise(1.0)(x)))))
    expected_nl = to_numpy(model(images_nhwc, training=False))
    split = split_model(model, "pruned")
    own, pruned, *carried = (to_numpy(t) for t in split.trunk.run(images_nhwc)[1:])
    everything = np.arange(8, dtype=np.int32) if split.reason is None else np.arange(split.n_units, dtype=np.int32)
    state = split.head.start(own, pruned, np.zeros(split.n_units, bool), everything)
    (logits_nl,) = split.head.finish(*state, *carried, everything, np.zeros((1, len(everything)), np.float32))
    np.testing.assert_allclose(to_numpy(logits_nl), expected_nl, rtol=1e-4, atol=1e-5)
    assert check(model, images_nhwc).n_tied == 0
