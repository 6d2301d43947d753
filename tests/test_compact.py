"""Compact models against the masked ones: every pattern by itself, random graphs, and what is refused."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from lab3.base.backend import to_numpy
from lab3.base.graph import flatten_model, run_steps
from lab3.errors import ConfigError, ModelError
from lab3.inputs.class_scores import read_class_scores
from lab3.pruning.anatomy import Anatomy, examine_model
from lab3.pruning.compact import (
    Plan,
    build_compact,
    compact_model,
    mask_layer,
    measure_cost,
    plan_compaction,
    prove_compact,
    round_width,
)
from lab3.pruning.compact.proof import Masked
from lab3.pruning.layers import prunable_layers
from lab3.pruning.split import split_model
from tests.random_models import N_CHANNELS, random_model
from tests.reference import normalise, shake

N_GRAPHS = int(os.environ.get("LAB3_GRAPHS", "12"))
PRUNED = (1, 2, 5, 6, 7)
EFFECTS = ("remove", "zero_weights")
TOLERANCES = {"float32": 1e-5, "mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}


def logits_of(model: Any, images_nhwc: np.ndarray) -> np.ndarray:
    graph = flatten_model(model)
    scores = read_class_scores(graph)
    return to_numpy(scores.logits(run_steps(scores.steps, {graph.input_slot: graph.feed(images_nhwc)})[scores.slot]))


def compare(anatomy: Anatomy, pruned: Any, images_nhwc: np.ndarray) -> tuple[Any, Plan, float]:
    """The compact model, its plan, and the largest difference of a logit to the masked model's, as a share."""
    plan = plan_compaction(anatomy, pruned)
    compact = build_compact(plan)
    masked_nl = anatomy.literal_logits(images_nhwc, [pruned])[0]
    whole_nl = anatomy.literal_logits(images_nhwc, [[]])[0]
    assert np.abs(whole_nl - masked_nl).max() > 1e-3 * np.abs(masked_nl).max(), "pruning must change something"
    difference = np.abs(logits_of(compact, images_nhwc) - masked_nl).max() / np.abs(masked_nl).max()
    return compact, plan, float(difference)


def make(tail: Callable[[Any], Any], *, shape: Any = (9, 9, 3), bias: bool = True, activation: Any = "relu") -> Any:
    """A model with a layer `pruned` of 8 channels, random statistics, and `tail` from it to three logits."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="pixels")
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation=activation, use_bias=bias, name="pruned")(x)
    return shake(keras.Model(inputs, layers.Dense(3, name="scores")(tail(x))))


def images_for(model: Any, n: int = 20) -> np.ndarray:
    shape = (n, *(size or 9 for size in model.input_shape[1:]))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def normed(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(name="bn")(x))


def pooled(x: Any) -> Any:
    return layers.GlobalAveragePooling2D()(x)


def same(x: Any, n: int = 4, size: int = 3, **settings: Any) -> Any:
    return layers.Conv2D(n, size, padding="same", activation="relu", name="reader", **settings)(x)


def forked(x: Any) -> Any:
    left = layers.Conv2D(3, 3, name="left")(layers.BatchNormalization()(x))
    right = layers.Dense(4)(layers.Flatten()(layers.MaxPooling2D(4)(x)))
    return layers.Concatenate()([layers.GlobalMaxPooling2D()(left), right])


def densely(x: Any) -> Any:
    """As in DenseNet, with a padded convolution right behind the normalisation of the concatenation."""
    side = layers.Conv2D(3, 1, name="side")(x)
    return pooled(same(normed(layers.Concatenate()([side, x, layers.MaxPooling2D(3, 1, "same")(x)]))))


def excited(x: Any) -> Any:
    gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    gate = layers.Activation("sigmoid")(layers.Conv2D(8, 1, name="gate")(gate))
    return pooled(same(layers.Multiply()([x, gate])))


def nested(x: Any) -> Any:
    inner = keras.Input(x.shape[1:])
    block = keras.Model(inner, pooled(same(normed(inner))), name="block")
    return block(x)


# Name: the tail, other settings of `make`, and how many constant channels `remove` and `zero_weights` need; None
# where that cannot be compacted.
PATTERNS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], tuple[int | None, int | None]]] = {
    "conv": (lambda x: pooled(same(x)), {}, (0, 0)),
    "conv_sigmoid": (lambda x: pooled(same(x)), {"activation": "sigmoid"}, (0, 1)),
    "conv_bn_relu": (lambda x: pooled(same(layers.MaxPooling2D(2)(normed(x)))), {"bias": False}, (0, 1)),
    "strided": (lambda x: pooled(same(normed(x), strides=2)), {"activation": None}, (0, 1)),
    "dilated": (lambda x: pooled(same(normed(x), dilation_rate=2)), {"activation": None}, (0, 1)),
    "one_by_one": (lambda x: pooled(same(normed(x), size=1)), {}, (0, 0)),
    "valid": (lambda x: pooled(layers.Conv2D(4, 3, use_bias=False)(normed(x))), {}, (0, 0)),
    "flatten": (lambda x: layers.Dense(6)(layers.Flatten()(normed(x))), {}, (0, 0)),
    "reshape": (lambda x: layers.Dense(6)(layers.Reshape((-1,))(layers.Reshape((3, 27, 8))(x))), {}, (0, 0)),
    "global_pool": (lambda x: pooled(normed(x)), {}, (0, 0)),
    "dense_per_position": (lambda x: pooled(layers.Dense(6, activation="relu")(normed(x))), {}, (0, 0)),
    "several_consumers": (forked, {}, (0, 0)),
    "concatenate": (densely, {}, (1, 1)),
    "concatenate_sigmoid": (densely, {"activation": "sigmoid"}, (None, 1)),
    "depthwise": (
        lambda x: pooled(
            same(normed(layers.DepthwiseConv2D(3, padding="same")(layers.BatchNormalization()(x))), size=1)
        ),
        {},
        (0, None),
    ),
    "depthwise_valid": (lambda x: pooled(same(layers.DepthwiseConv2D(3)(normed(x)), size=1)), {}, (0, 0)),
    "depth_multiplier": (
        lambda x: pooled(same(layers.DepthwiseConv2D(3, depth_multiplier=2)(normed(x)), size=1)),
        {},
        (0, 0),
    ),
    "separable": (lambda x: pooled(layers.SeparableConv2D(4, 3, depth_multiplier=2)(normed(x))), {}, (0, 0)),
    "separable_same": (lambda x: pooled(layers.SeparableConv2D(4, 3, padding="same")(normed(x))), {}, (0, None)),
    "transpose": (lambda x: pooled(layers.Conv2DTranspose(4, 3, strides=2)(normed(x))), {}, (0, 1)),
    "squeeze_excite": (excited, {}, (0, 0)),
    "zero_padding": (
        lambda x: pooled(layers.Conv2D(4, 3)(layers.ZeroPadding2D(1)(normed(x)))),
        {},
        (0, 1),
    ),
    "own_addition": (lambda x: pooled(same(layers.Add()([x, layers.Activation("tanh")(x)]))), {}, (0, 0)),
    "nested": (nested, {}, (0, 1)),
    "prelu": (lambda x: pooled(same(layers.PReLU(shared_axes=[1, 2])(x))), {"activation": None}, (0, 0)),
    "prelu_shared": (lambda x: pooled(same(layers.PReLU(shared_axes=[1, 2, 3])(x))), {"activation": None}, (0, 0)),
    "any_size": (lambda x: pooled(same(normed(x))), {"shape": (None, None, 3)}, (0, 1)),
}


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_compact_model_gives_what_the_masked_one_gives(name: str, effect: Any) -> None:
    tail, settings, n_expected = PATTERNS[name]
    model = make(tail, **settings)
    anatomy = examine_model(model, "pruned", effect=effect)
    n_constant = n_expected[EFFECTS.index(effect)]
    if n_constant is None:
        with pytest.raises(
            ModelError, match=r"a compact model must give exactly .* but layer .* or keep the model as it"
        ):
            compact_model(anatomy, PRUNED)
        return
    before = [weight.copy() for weight in model.get_weights()]
    compact, plan, difference = compare(anatomy, PRUNED, images_for(model))
    assert difference <= 1e-5
    assert len(plan.constant_channels) == n_constant and set(plan.constant_channels) <= set(PRUNED)
    assert compact.get_layer("pruned").filters == plan.n_channels == 3 + n_constant
    assert compact.input_shape == model.input_shape and compact.inputs[0].name == "pixels"
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


def test_removal_is_slicing_and_nothing_else() -> None:
    model = make(lambda x: pooled(same(normed(x), n=8)))
    compact = compact_model(examine_model(model, "pruned"), PRUNED)
    kept = [0, 3, 4]
    expected = {
        "first": model.get_layer("first").get_weights(),
        "pruned": [weight[..., kept] for weight in model.get_layer("pruned").get_weights()],
        "bn": [weight[kept] for weight in model.get_layer("bn").get_weights()],
        "reader": [model.get_layer("reader").get_weights()[0][:, :, kept], model.get_layer("reader").get_weights()[1]],
        "scores": model.get_layer("scores").get_weights(),
    }
    assert [layer.name for layer in compact.layers] == [layer.name for layer in model.layers]
    for name, weights in expected.items():
        for ours, theirs in zip(compact.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_constants_go_into_the_bias_or_into_one_channel() -> None:
    """BatchNormalization makes beta - gamma mean / sqrt(variance + eps) of zero weights; ReLU cuts it at 0."""
    model = make(lambda x: pooled(same(normed(x), size=1)), bias=False, activation=None)
    gamma, beta, mean, variance = (weight.astype(np.float64) for weight in model.get_layer("bn").get_weights())
    constant_c = np.maximum(beta - gamma * mean / np.sqrt(variance + 1e-3), 0)
    assert (constant_c[list(PRUNED)] > 0).sum() >= 2
    kernel, bias = model.get_layer("reader").get_weights()
    folded = bias + constant_c[list(PRUNED)] @ kernel[0, 0, list(PRUNED)]
    compact = compact_model(examine_model(model, "pruned", effect="zero_weights"), PRUNED)
    np.testing.assert_allclose(compact.get_layer("reader").get_weights()[1], folded, rtol=1e-5)

    padded = make(lambda x: pooled(same(normed(x))), bias=False, activation=None)
    plan = plan_compaction(examine_model(padded, "pruned", effect="zero_weights"), PRUNED)
    (channel,) = plan.constant_channels
    assert channel == max(PRUNED, key=lambda each: constant_c[each])
    place = [c for c in range(8) if c not in PRUNED or c == channel].index(channel)
    kernel = padded.get_layer("reader").get_weights()[0].astype(np.float64)
    composed = np.tensordot(constant_c[list(PRUNED)], kernel[:, :, list(PRUNED)], axes=(0, 2)) / constant_c[channel]
    compact = build_compact(plan)
    np.testing.assert_allclose(
        compact.get_layer("reader").get_weights()[0][:, :, place], composed, rtol=1e-4, atol=1e-6
    )
    assert not compact.get_layer("pruned").get_weights()[0][..., place].any()


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_branch_that_is_added_to_others_gets_its_width_back(effect: Any) -> None:
    inputs = keras.Input((9, 9, 3))
    side = layers.Conv2D(8, 1)(inputs)
    x = layers.Conv2D(8, 3, padding="same", name="pruned")(inputs)
    x = layers.Add(name="sum")([layers.BatchNormalization()(x), side])
    model = shake(keras.Model(inputs, layers.Dense(3)(pooled(same(layers.ReLU()(x))))))
    compact, _, difference = compare(examine_model(model, "pruned", effect=effect), PRUNED, images_for(model))
    assert difference <= 1e-5
    matrix, *bias = compact.get_layer("sum_input_0").get_weights()
    np.testing.assert_array_equal(matrix, np.eye(8)[[0, 3, 4]])
    assert [list(np.flatnonzero(each)) for each in bias] == ([] if effect == "remove" else [list(PRUNED)])
    assert compact.get_layer("pruned").filters == 3


def test_a_gate_is_cut_with_its_channels_or_the_channels_get_their_width_back() -> None:
    model = make(excited)
    compact, _, _ = compare(examine_model(model, "pruned"), PRUNED, images_for(model))
    assert compact.get_layer("gate").filters == 3
    model = make(excited, activation="sigmoid")
    compact, _, difference = compare(examine_model(model, "pruned", effect="zero_weights"), PRUNED, images_for(model))
    assert compact.get_layer("gate").filters == 8 and difference <= 1e-5


def test_behind_a_padded_depthwise_convolution_a_few_channels_hold_every_border() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 3))
    x = normed(layers.Conv2D(48, 1, name="pruned")(inputs))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    model = shake(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(5, 1)(x)))))
    anatomy = examine_model(model, "pruned", effect="zero_weights")
    _, plan, difference = compare(anatomy, range(40), images_for(model))
    assert difference <= 1e-5 and 1 < len(plan.constant_channels) <= 9


def test_layers_of_16_bits_keep_their_policies() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make(lambda x: pooled(same(layers.Add(name="sum")([normed(x), layers.Conv2D(8, 1)(x)]))))
    finally:
        keras.config.set_dtype_policy(before)
    compact, _, difference = compare(examine_model(model, "pruned", effect="zero_weights"), PRUNED, images_for(model))
    assert difference <= 1e-2
    policies = {layer.name: layer.dtype_policy.name for layer in compact.layers}
    assert all(policies[layer.name] == layer.dtype_policy.name for layer in model.layers[1:])
    assert policies["sum_input_0"] == "mixed_float16"


def test_nothing_pruned_is_the_model_itself() -> None:
    model = make(nested)
    compact = compact_model(examine_model(model, "pruned"), [])
    images_nhwc = images_for(model)
    np.testing.assert_array_equal(logits_of(compact, images_nhwc), logits_of(model, images_nhwc))


def in_groups(x: Any) -> Any:
    return pooled(layers.Conv2D(4, 3, groups=2, name="grouped")(x))


def own_class(x: Any) -> Any:
    class Doubling(layers.ReLU):
        def call(self, inputs: Any) -> Any:
            return 2 * super().call(inputs)

    return pooled(Doubling(name="mine")(x))


def twice(x: Any) -> Any:
    norm = layers.BatchNormalization(name="shared")
    return pooled(layers.Concatenate()([norm(x), norm(layers.ReLU()(x))]))


REFUSALS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], str]] = {
    "layer norm": (lambda x: pooled(layers.LayerNormalization(name="ln")(x)), {}, "ln (LayerNormalization) reads"),
    "group norm": (
        lambda x: pooled(layers.GroupNormalization(2, name="gn")(x)), {}, "gn (GroupNormalization) reads pruned",
    ),
    "groups": (in_groups, {}, "grouped (Conv2D) is a convolution of 2 groups"),
    "own class": (own_class, {}, "mine (Doubling) is a class of its own"),
    "called twice": (twice, {}, "shared (BatchNormalization) is called 2 times"),
    "softmax": (lambda x: pooled(layers.Activation("softmax", name="a")(x)), {}, "a (Activation) reads pruned"),
    "any size": (
        lambda x: pooled(layers.Conv2D(4, 3)(layers.ZeroPadding2D(1, name="pad")(x))),
        {"shape": (None, None, 3), "activation": "sigmoid"},
        "pad (ZeroPadding2D) gives constants that differ from place to place",
    ),
    "separable": (
        lambda x: pooled(layers.SeparableConv2D(4, 3, padding="same", name="sep")(x)),
        {"activation": "sigmoid"},
        "sep (SeparableConv2D) gives each constant a kernel of its own; prune another layer, sweep with prune.effect",
    ),
    "array": (lambda x: pooled(x * np.arange(8, dtype=np.float32)), {}, "(Multiply) joins the channels with an array"),
    "positions": (
        lambda x: layers.Dense(4)(layers.Permute((3, 1, 2), name="turn")(x)[:, :, 0, 0]), {}, "turn (Permute) reads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_exact_is_refused_by_name(name: str) -> None:
    tail, settings, text = REFUSALS[name]
    anatomy = examine_model(make(tail, **settings), "pruned", effect="zero_weights")
    with pytest.raises(ModelError) as refused:
        compact_model(anatomy, PRUNED)
    assert text in str(refused.value)


def test_a_layer_must_keep_a_channel() -> None:
    anatomy = examine_model(make(pooled), "pruned")
    with pytest.raises(ModelError, match=r"pruned \(Conv2D\) has 8 channels and all are pruned; prune fewer"):
        compact_model(anatomy, range(8))


@pytest.mark.parametrize("seed", range(N_GRAPHS))
@pytest.mark.parametrize("effect", EFFECTS)
def test_random_graphs_are_compacted_exactly_or_refused_by_name(seed: int, effect: Any) -> None:
    drawn = random_model(seed)
    rng = np.random.default_rng(seed)
    images_nhwc = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    pruned = sorted(rng.choice(N_CHANNELS, rng.integers(1, N_CHANNELS), replace=False).tolist())
    anatomy = examine_model(drawn.model, "pruned", effect=effect)
    masked_nl = anatomy.literal_logits(images_nhwc, [pruned])[0]
    try:
        compact = compact_model(anatomy, pruned)
    except ModelError as refused:
        assert effect == "zero_weights" and "constants" in str(refused), drawn.description
        return
    tolerance = TOLERANCES[drawn.description.partition(":")[0]]
    difference = np.abs(logits_of(compact, images_nhwc) - masked_nl).max() / np.abs(masked_nl).max()
    assert difference <= tolerance, f"{drawn.description}, {pruned}"
    if effect == "remove":
        # The twin knows nothing of how lab3 takes graphs apart.
        output = np.asarray(keras.ops.convert_to_numpy(compact(images_nhwc, training=False)), np.float32)
        expected = drawn.masked_scores(images_nhwc, pruned)
        assert np.abs(output - expected).max() <= tolerance * max(1.0, np.abs(expected).max()), drawn.description


def test_a_width_is_rounded_up_by_the_most_important_of_the_pruned() -> None:
    anatomy = examine_model(make(lambda x: pooled(same(x))), "pruned")
    importance_c = np.array([9.0, 1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 5.0])
    plan, rounded = round_width(anatomy, PRUNED, importance_c, 4)
    assert (plan.n_channels, rounded.n_channels, rounded.pruned_channels) == (3, 4, (1, 2, 5, 6))
    assert round_width(anatomy, PRUNED, importance_c, 3)[1].pruned_channels == PRUNED
    with pytest.raises(ConfigError, match=r"--round-to must leave fewer channels than the 8 .* got 16"):
        round_width(anatomy, PRUNED, importance_c, 16)
    # A constant channel is a channel: two kept and one constant make 3, and 4 is reached with one more.
    anatomy = examine_model(make(lambda x: pooled(same(x)), activation="sigmoid"), "pruned", effect="zero_weights")
    plan, rounded = round_width(anatomy, PRUNED, importance_c, 6)
    assert (plan.n_channels, rounded.n_channels, rounded.pruned_channels) == (4, 6, (1, 2, 5))


def test_costs_are_those_on_paper() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)  # 6 x 6 x 4 outputs of 27 products
    x = layers.DepthwiseConv2D(3, padding="same")(x)  # 144 outputs of 9
    x = layers.SeparableConv2D(6, 3)(x)  # 16 positions of 4 x 9 + 4 x 6
    x = layers.Conv2DTranspose(2, 2, strides=2)(x)  # 96 inputs of 4 x 2
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))  # 128 x 5
    cost = measure_cost(model, (8, 8, 3))
    assert cost.multiply_adds == 144 * 27 + 144 * 9 + 16 * 60 + 96 * 8 + 128 * 5
    assert cost.parameters == model.count_params() == 112 + 40 + 66 + 50 + 645
    # The image and the first output, 192 + 144 numbers; no later pair is larger.
    assert cost.peak_activation_bytes == 4 * (192 + 144)


def test_a_model_that_differs_is_found() -> None:
    model = make(lambda x: pooled(same(x)))
    split = split_model(model, "pruned")
    images_nhwc, labels_n = images_for(model, 50), np.zeros(50, int)
    compact = compact_model(split.anatomy, PRUNED)
    proof = prove_compact(mask_layer(split, PRUNED), compact, images_nhwc, labels_n, lambda block: block, batch_size=20)
    assert (proof.n_images, proof.n_equal, proof.n_tied, proof.tolerance) == (50, 50, 0, 1e-5)
    assert proof.correct == int((logits_of(compact, images_nhwc).argmax(axis=1) == 0).sum())
    for change in (1e-3, np.nan):
        other = compact_model(split.anatomy, PRUNED)
        bias = other.get_layer("scores").bias
        bias.assign(bias + np.array([0, change, 0], np.float32))
        with pytest.raises(ModelError, match=r"the compact model must give .* it is not written"):
            prove_compact(mask_layer(split, PRUNED), other, images_nhwc, labels_n, lambda block: block, batch_size=20)


def test_one_number_beside_its_threshold_is_a_tie_by_the_largest_of_all_images() -> None:
    model = keras.Sequential([keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")])
    model.layers[-1].set_weights([np.ones((1, 1)), np.zeros(1)])
    images_nhwc = np.array([10, 2e-6, -7], np.float32).reshape(3, 1, 1, 1)

    def prove(shift: float) -> Any:
        masked = Masked(
            "1 channel", 1e-5, lambda block, _: np.stack([0 * block.ravel(), block.ravel() - shift], axis=1)
        )
        return prove_compact(masked, model, images_nhwc, np.array([1, 1, 0]), lambda block: block)

    proof = prove(4e-6)
    assert (proof.n_equal, proof.n_tied, proof.correct) == (2, 1, 3)
    with pytest.raises(ModelError, match=r"1 of 3 images are predicted otherwise"):
        prove(1e-2)


@pytest.mark.large
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_every_layer_of_known_networks_is_compacted_or_refused(name: str, effect: Any) -> None:
    keras.utils.set_random_seed(0)
    model: Any = getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation=None
    )
    images_nhwc = np.random.default_rng(0).uniform(0, 255, size=(4, 64, 64, 3)).astype(np.float32)
    normalise(model, images_nhwc)
    found, refused = [], []
    for layer in prunable_layers(model):
        anatomy = examine_model(model, layer.name, effect=effect)
        pruned = list(range(0, anatomy.n_channels, 7))
        try:
            compact = compact_model(anatomy, pruned)
        except ModelError as error:
            refused.append(f"{layer.name}: {error}")
            continue
        masked_nl = anatomy.literal_logits(images_nhwc, [pruned])[0]
        difference = np.abs(logits_of(compact, images_nhwc) - masked_nl).max() / np.abs(masked_nl).max()
        # Through so many layers of random weights the last bit of the first ones becomes up to 1e-5.
        assert difference <= 1e-4, f"{layer.name}: {difference}"
        found.append(compact.count_params() < model.count_params())
    n = len(found) + len(refused)
    print(f"{name}, {effect}: {len(found)} of {n} layers compacted, {sum(found)} with fewer parameters")
    print("\n".join(refused))
    assert found
