"""Pack lab3 for a machine with JAX, a GPU and no network; test and measure it there.

    python benchmarks/gpu_check.py pack gpu-check       # here: wheels, tests and benchmarks, at most 60 MiB
    python gpu-check/benchmarks/gpu_check.py run        # there: writes gpu-check/RESULTS.md

What JAX brings itself (NumPy, SciPy, ml_dtypes) is not packed. There the tests of numbers run on JAX, and then the exact
sweep beside the best honest loop, on the network of the first report with random weights and random images that it
labels itself: counts and times are those of any weights. Without a GPU the same runs on the CPU, and says so.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MAX_MIB = 60
# What a machine with JAX has, or what only TensorFlow needs; fonttools comes by itself.
_NOT_PACKED = {
    "absl-py", "astunparse", "flatbuffers", "fonttools", "gast", "google-pasta", "grpcio", "jax", "jaxlib", "libclang", "markdown",
    "ml-dtypes", "numpy", "opt-einsum", "scipy", "setuptools", "tensorboard", "tensorboard-data-server", "tensorflow",
    "termcolor", "werkzeug", "wheel", "wrapt",
}  # fmt: skip
_ALSO = ("pytest", "hypothesis", "pytest-xdist")
_TESTS = ("tests/test_selfcheck.py", "tests/test_class_scores.py", "tests/test_random_models.py")


def pack(folder: Path) -> None:
    """Fill `folder` with wheels for this Python, lab3's own among them, tests and benchmarks.

    Raises `SystemExit` if that is more than 60 MiB.
    """
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--wheel-dir", wheels, ROOT], check=True)
    report = folder / "report.json"
    options = ("-q", "--dry-run", "--ignore-installed", "--report", str(report))
    subprocess.run([*pip, "install", *options, str(ROOT), *_ALSO], check=True)
    found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    report.unlink()
    needed = [
        f"{each['name']}=={each['version']}" for each in found if _plain(each["name"]) not in _NOT_PACKED | {"lab3"}
    ]
    command = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--dest", str(wheels), "absl-py", *needed]
    subprocess.run(command, check=True)
    # Of this one the wheel without compiled parts is enough, and a fifth of the other.
    pure = ("--platform", "any", "--only-binary=:all:", "--dest", str(wheels), "fonttools")
    subprocess.run([*pip, "download", "-q", "--no-deps", *pure], check=True)
    for name in ("tests", "benchmarks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "RESULTS.md", "results.json")
        )
    shutil.copy(ROOT / "setup.cfg", folder)
    n_mib = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    print(f"{folder}: {len(list(wheels.iterdir()))} wheels, {n_mib:.1f} MiB")
    if n_mib > _MAX_MIB:
        raise SystemExit(f"more than {_MAX_MIB} MiB: leave something out")


def run(n_images: int, n_k: int) -> None:
    """Install what was packed beside the machine's JAX, test, measure, and write RESULTS.md."""
    packages = ROOT / "packages"
    if not packages.exists():
        wheels = sorted(map(str, (ROOT / "wheels").glob("*.whl")))
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(packages)]
        subprocess.run([*install, *wheels], check=True)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "LAB3_GRAPHS": "3",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    python = sys.executable
    lines = [f"# GPU check, {time.strftime('%Y-%m-%d')}", "", *_about(python, environment), ""]
    tests = [python, "-m", "pytest", "-q", "-p", "xdist.plugin", *_TESTS]
    done = subprocess.run(tests, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines += ["## Tests of numbers on JAX", "", "```", *done.stdout.splitlines()[-12:], "```", ""]
    started_s, start_j = time.monotonic(), _energy_j()
    measure = [python, "benchmarks/gpu_check.py", "measure", "--images", str(n_images), "--k", str(n_k)]
    measured = subprocess.run(measure, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines += [
        "## Sweep and honest loop",
        "",
        "```",
        *measured.stdout.splitlines(),
        *measured.stderr.splitlines()[-5:],
        "```",
        "",
    ]
    end_j = _energy_j()
    energy = "not measured" if start_j is None or end_j is None else f"{end_j - start_j:,.0f} J"
    lines += [f"Energy of the GPU in these {time.monotonic() - started_s:.0f} s: {energy}."]
    (ROOT / "RESULTS.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if done.returncode or measured.returncode:
        raise SystemExit(1)


def measure(n_images: int, n_k: int) -> None:
    """In the environment that `run` made: the model and images, and the benchmark of the sweeps on them."""
    import tempfile

    from lab3.base.backend import load_backend

    load_backend("auto")
    import keras
    import numpy as np

    from lab3.inputs.architectures import build_model
    from lab3.inputs.model_files import save_model

    keras.utils.set_random_seed(0)
    model = build_model("vgg16")
    # Random weights give scores so near each other that their probabilities are the same in float32.
    last = model.layers[-1]
    last.kernel.assign(1000 * last.kernel)
    images_nhwc = np.random.default_rng(0).integers(0, 256, (n_images, *model.input_shape[1:])).astype(np.uint8)
    labels_n = np.concatenate(
        [
            np.asarray(model.predict_on_batch(images_nhwc[at : at + 250] / np.float32(255))).argmax(axis=1)
            for at in range(0, n_images, 250)
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder) / "vgg16.h5")
        np.savez(Path(folder) / "images.npz", x_test=images_nhwc, y_test=labels_n)
        command = ["benchmarks/sweep.py", "--model", f"{folder}/vgg16.h5", "--data", f"{folder}/images.npz"]
        command += ["--images", str(n_images), "--k", str(n_k), "--parts", "sweeps"]
        raise SystemExit(subprocess.run([sys.executable, *command]).returncode)


def _about(python: str, environment: dict[str, str]) -> list[str]:
    """Which device JAX has, and the versions."""
    code = "import jax, keras; print([str(d.device_kind) for d in jax.devices()], 'JAX', jax.__version__, 'Keras', keras.__version__)"
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True)
    return [f"Devices: {done.stdout.strip() or done.stderr.strip()[-300:]}"]


def _energy_j() -> float | None:
    """What the GPU has used since its driver was loaded, from NVML by way of nvidia-smi; None where it does not say."""
    query = ["nvidia-smi", "--query-gpu=total_energy_consumption", "--format=csv,noheader,nounits"]
    if shutil.which(query[0]) is None:
        return None
    done = subprocess.run(query, capture_output=True, text=True)
    try:
        return float(done.stdout.splitlines()[0]) / 1000
    except (IndexError, ValueError):
        return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def main() -> None:
    """Pack, run or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "run", "measure"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("gpu-check"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=512)
    options = parser.parse_args()
    if options.what == "pack":
        pack(options.folder)
    elif options.what == "run":
        run(options.images, options.k)
    else:
        measure(options.images, options.k)


if __name__ == "__main__":
    main()
