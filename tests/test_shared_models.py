"""Sweeps of files that Keras 2 wrote, both effects, against the literal loop; the files lie beside the checkout."""

from typing import Any

import keras
import numpy as np
import pytest

import lab3
from lab3.pruning.capture import capture
from lab3.pruning.engine import sweep_points
from lab3.pruning.layers import prunable_layers
from lab3.pruning.rank import plan_pruning
from lab3.pruning.scores import score_channels
from lab3.pruning.selfcheck import check_split
from lab3.pruning.split import split_model
from tests.conftest import shared_file
from tests.reference import both_classes, literal_sweep

NAMES = [
    "attention_vit_tf215.h5", "keras_v3fmt_mnv2_tf212.keras", "keras_v3fmt_tf215.keras", "logit1_tf215.h5",
    "mixed_precision_tf215.h5", "mlp_2d_tf215.h5", "pooled_base_tf215.h5", "preproc_inside_tf215.h5",
    "separable_named_tf215.h5", "seq_batchinput_tf215.h5", "teachable_machine_waste.h5", "transpose_named_tf215.h5",
    "unicode_names_tf215.h5",
]  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("effect", ["remove", "zero_weights"])
def test_sweeps_of_files_of_keras_2_equal_the_literal_loop(name: str, effect: Any) -> None:
    model = lab3.load_model(shared_file(f"models/keras2/{name}"))
    scale = float(np.load(shared_file(f"models/keras2/{name}.golden.npz"))["scale"])
    n_images = 24 if (model.input_shape[1] or 0) > 100 else 64
    shape = (n_images, *(size or 32 for size in model.input_shape[1:]))
    images = np.random.default_rng(1).random(shape).astype(np.float32) * scale
    scores_nl = both_classes(model, keras.ops.convert_to_numpy(model(images, training=False)).astype(np.float32))
    labels_n = scores_nl.argmax(axis=1)
    labels_n[::4] = (labels_n[::4] + 1) % scores_nl.shape[1]

    layer = prunable_layers(model)[-1].name if name.startswith("mlp") else None
    measured: Any = "activation" if effect == "remove" else "output"
    split = split_model(model, layer, effect=effect, measured=measured)
    images_nhwc = images if images.ndim == 4 else images[..., np.newaxis]
    weights_n = np.full(n_images, 1 / n_images)
    captured = capture(split, images_nhwc, lambda block: block, weights_n=weights_n, batch_size=24)
    scores = score_channels("mean_activation", split, captured, labels_n, seed=0, batch_size=24)
    ks = [0, *(split.n_channels * i // 4 for i in (1, 2, 3)), split.n_channels - 1]
    steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, ks, "once")
    check_split(split, model, captured.features, images_nhwc, lambda block: block, steps, batch_size=24)
    points = list(sweep_points(split, captured.features, labels_n, steps, batch_size=24))

    if effect == "zero_weights":
        expected = [p.correct for p in literal_sweep(model, images, labels_n, split.layer_name, ks, ranking="once")]
    else:
        masked_knl = split.anatomy.literal_logits(images, [step.pruned_channels for step in steps])
        expected = (masked_knl.argmax(axis=2) == labels_n).sum(axis=1).tolist()
    assert [point.correct for point in points] == expected
    assert points[0].correct == n_images - len(labels_n[::4])
