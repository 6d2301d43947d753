"""The names that settings can have; for what they mean see docs/settings.md."""

from typing import Literal

Architecture = Literal["vgg16", "simplecnn", "digits_cnn"]
Average = Literal["images", "batches"]
Bias = Literal["zero", "keep"]
Color = Literal["rgb", "grayscale"]
Criterion = Literal[
    "mean_activation", "mean_absolute", "maximum", "standard_deviation", "apoz", "filter_l1", "filter_l2", "fpgm",
    "batchnorm_scale", "taylor", "oracle", "random",
]  # fmt: skip
Cost = Literal["flops", "parameters", "bytes", "latency"]
Device = Literal["auto", "cpu", "gpu"]
Effect = Literal["remove", "zero_weights"]
Measured = Literal["activation", "output", "before_activation"]
Ranking = Literal["once", "iterative"]
Shortcut = Literal["none", "unchanged", "inferred"]
Until = Literal["all", "certified"]
