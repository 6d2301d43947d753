"""How long the dashboard takes for 1,000 runs of 512 points, and what following 20 writers costs.

    python benchmarks/dashboard.py

Prints seconds to list all runs with nothing read before and again, seconds and bytes of a report of 512 channels, and the
share of a core that the service uses while 20 runs write a point each second and a browser's requests come every two.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

N_RUNS, N_WRITERS, FOLLOWED_S = 1000, 20, 20


def make_run(folder: Path) -> Path:
    """A finished sweep of 512 channels."""
    import keras

    from lab3.base.backend import load_backend

    load_backend("cpu")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 6, 3)), keras.layers.Conv2D(512, 3, activation="relu", name="wide")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential(layers)
    images_nhwc = np.random.default_rng(0).integers(0, 256, (1000, 6, 6, 3)).astype(np.uint8)
    labels_n = np.asarray(model(images_nhwc / np.float32(255))).argmax(axis=1)
    model.save(folder / "m.keras")
    np.savez(folder / "d.npz", x_test=images_nhwc, y_test=labels_n)
    command = [sys.executable, "-m", "lab3", "sweep", folder / "m.keras", "--data", folder / "d.npz", "--run-id", "r"]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return folder / "runs" / "r"


def serve(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The service and its address."""
    command = [sys.executable, "-m", "lab3", "dashboard", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[0]


def seconds_of(address: str) -> float:
    """How long an answer takes."""
    start = time.perf_counter()
    with urllib.request.urlopen(address) as answer:
        answer.read()
    return time.perf_counter() - start


def cpu_of(process: subprocess.Popen[str]) -> float:
    """Seconds of a core that it has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_list(run: Path, folder: Path) -> None:
    """Cold and warm."""
    names = [path for path in run.iterdir() if path.is_file()]
    for number in range(N_RUNS):
        copy = folder / f"r{number:04}"
        copy.mkdir(parents=True)
        for path in names:
            shutil.copy(path, copy)
    process, address = serve(folder)
    seconds_of(f"{address}healthz")
    cold, warm = (seconds_of(address) for _ in range(2))
    page = seconds_of(f"{address}run/r0000")
    process.terminate()
    process.wait()
    print(
        f"list of {N_RUNS} runs: {cold:.2f} s cold, {warm:.2f} s warm; first page of a run of 512 points {page:.2f} s"
    )


def measure_following(run: Path, folder: Path) -> None:
    """A core's share while runs write."""
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for number in range(N_WRITERS):
        shutil.copytree(run, folder / f"w{number}")
        (folder / f"w{number}" / "summary.json").unlink()
        (folder / f"w{number}" / "journal.jsonl").write_bytes(lines[0])
    process, address = serve(folder)
    seconds_of(address)
    is_done = threading.Event()

    def write() -> None:
        for line in lines[1:]:
            for number in range(N_WRITERS):
                with (folder / f"w{number}" / "journal.jsonl").open("ab") as file:
                    file.write(line)
            if is_done.wait(1):
                return

    writer = threading.Thread(target=write)
    writer.start()
    start, before, version, n_points = time.monotonic(), cpu_of(process), 0, 0
    while time.monotonic() < start + FOLLOWED_S:
        with urllib.request.urlopen(f"{address}api/runs?since={version}") as answer:
            version = json.loads(answer.read())["version"]
        with urllib.request.urlopen(f"{address}api/points/w0?after={n_points}") as answer:
            n_points += len(json.loads(answer.read())["points"])
        time.sleep(2)
    share = (cpu_of(process) - before) / (time.monotonic() - start)
    is_done.set()
    writer.join()
    process.terminate()
    process.wait()
    print(f"following {N_WRITERS} writers: {100 * share:.1f} % of a core, {n_points} points seen of one of them")


def main() -> None:
    """All of it, in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = make_run(folder)
        from lab3.views.report import write_report

        start = time.perf_counter()
        page = write_report(run)
        print(f"report of 512 channels: {time.perf_counter() - start:.2f} s, {page.stat().st_size:,} bytes")
        measure_list(run, folder / "many")
        measure_following(run, folder / "live")


if __name__ == "__main__":
    main()
