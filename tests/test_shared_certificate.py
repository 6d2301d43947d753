"""The certificate of the trained VGG-16 on CIFAR-10's 10,000 test images; both lie beside the checkout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from lab3.analysis.certificate import Evidence, certify
from lab3.analysis.flips import rightness
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir
from tests.conftest import shared_file
from tests.points import share_too_large

TOLERANCES = (0.005, 0.01, 0.02)


@pytest.mark.shared
@pytest.mark.parametrize(("effect", "expected"), [("remove", (135, 230, 286)), ("zero_weights", (67, 161, 225))])
def test_the_trained_vgg16_is_certified(
    effect: Any, expected: tuple[int, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    model, data = shared_file("models/vgg16_cifar10_keras2.h5"), shared_file("data/cifar10-test.zip")
    settings = ("--tolerance", "0.02", "--until", "certified", "--set", "prune.measured=output")
    result = invoke("sweep", model, "--data", data, *settings, "--set", f"prune.effect={effect}", "--run-id", "v")
    assert result.exit_code == 0, result.output
    run = RunDir(tmp_path / "runs" / "v")
    points, summary = read_points(run), read_summary(run)
    evidence = Evidence(points, summary["layer"], 512, effect, list(map(str, range(10))))
    certificates = [certify(evidence, tolerance, 0.95) for tolerance in TOLERANCES]
    # Float sums differ between processors, and with them an image or two.
    np.testing.assert_allclose([each.k for each in certificates], expected, atol=2)
    assert summary["certified"]["k"] == certificates[-1].k and points[-1].k == certificates[-1].failed_k
    assert "of 512 channels of conv2d_12 can be " in summary["sentence"]
    for n in (300, 1_000, 10_000):
        certified, observed = share_too_large(rightness(points), n, 0.01)
        # Three standard errors of 2,000 sets above 0.05 are 0.0646.
        assert certified <= 0.0646 and observed > 0.2, (n, certified, observed)
