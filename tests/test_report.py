"""Reports: the folder's own numbers, escaped, in one file; and the commands that list, show and compare runs."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import keras
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from lab3.analysis.comparison import compare_sweeps
from lab3.inputs.model_files import save_model
from lab3.record.readers import read_epochs, read_points, read_summary
from lab3.record.rundir import RunDir
from lab3.record.state import read_state
from lab3.views.report import gather_report, render_report
from lab3.views.report.charts import Chart, Line, draw, ticks
from lab3.views.report.pictures import stitch
from tests.conftest import run_lab3
from tests.folders import holding, read_csv, stop, unfinish
from tests.points import make_points

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "report.schema.json").read_text())


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and the text of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: str | None = None
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag if tag in ("script", "style") else None
        if self._open:
            self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = None


def test_the_numbers_are_those_of_the_other_files(own: Path) -> None:
    facts = json.loads((own / "report.json").read_text())
    jsonschema.validate(facts, SCHEMA)
    summary, points = read_summary(RunDir(own)), read_points(RunDir(own))
    sweep = facts["sweep"]
    assert facts["sentence"] == summary["sentence"] and facts["kind"] == "sweep"
    assert (sweep["certified_k"], sweep["observed_k"]) == (summary["certified"]["k"], summary["observed"]["k"])
    results, certificate = read_csv(own / "results.csv"), read_csv(own / "certificate.csv")
    for found, row, drop, point in zip(sweep["points"], results, certificate, points, strict=True):
        assert (found["k"], found["correct"]) == (int(row["k"]), int(row["correct"]))
        assert f"{found['accuracy']:.6f}" == row["accuracy"] and found["accuracy"] == point.accuracy
        for name in ("drop", "drop_low", "drop_high", "p"):
            assert f"{found[name]:.6f}" == drop[name]
        assert found["band_low"] <= found["accuracy"] <= found["band_high"]
    assert [(c["channel"], c["importance"]) for c in sweep["channels"]] == [
        (int(row["channel"]), float(row["importance"])) for row in read_csv(own / "channels.csv")
    ]
    scores = read_csv(own / "scores.csv")
    assert all(
        scores[c["channel"]][name] == str(value) for c in sweep["channels"] for name, value in c["scores"].items()
    )
    pruned: set[int] = set()
    for found, point in zip(sweep["points"], points, strict=True):
        pruned = pruned.union(found["new_channels"]).difference(found["back_channels"])
        assert pruned == set(point.pruned_channels)
    assert [epoch["accuracy"] for epoch in facts["epochs"]] == [each.accuracy for each in read_epochs(RunDir(own))]

    page = (own / "report.html").read_text()
    for point in points:
        assert f"<td>{point.correct}</td><td>{point.accuracy:.4f}</td>" in page
    assert (
        summary["sentence"].replace(" %", "\u00a0%") in page and summary["sentence"] in (own / "report.md").read_text()
    )


def test_the_page_is_one_file_whose_policy_allows_its_own_script_alone(own: Path) -> None:
    page = Page(own / "report.html")
    assert not [tag for tag, _ in page.tags if tag in ("img", "link", "iframe", "object", "form")]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "xlink:href")]
    [policy] = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    data, script = page.texts["script"]
    [style] = page.texts["style"]
    for what, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{what}-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert set(re.findall(r"url\((.{5})", style)) == {"data:"} and "@import" not in style
    assert json.loads(data)["k"] == list(range(32))


def test_the_same_folder_gives_the_same_bytes(own: Path, invoke: Callable[..., Result]) -> None:
    before = {name: (own / name).read_bytes() for name in ("report.html", "report.json", "report.md")}
    assert before == render_report(own)
    (own / "report.html").write_text("<p>a better number</p>")
    wrong = invoke("verify", own)
    assert wrong.exit_code == 65 and "report.html is not what the folder gives; write it again with" in wrong.stdout
    again = invoke("report", own)
    assert (again.exit_code, again.stdout) == (0, f"{own / 'report.html'}\n")
    assert (own / "report.html").read_bytes() == before["report.html"] and invoke("verify", own).exit_code == 0


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</td><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "=cmd()|'!A1",
    '" onload="x',
)


def test_names_of_strangers_are_text(tmp_path: Path) -> None:
    layer = '"><script>alert(1)<!--'
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name=layer),
            keras.layers.Flatten(),
            keras.layers.Dense(len(HOSTILE), activation="softmax"),
        ]
    )
    save_model(model, tmp_path / "m.h5")
    rng = np.random.default_rng(0)
    names = [name.replace("/", "\u2215") for name in HOSTILE]
    for name in names:
        (tmp_path / "i&<b>" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(
                tmp_path / "i&<b>" / name / f"{number}.png"
            )
    run_lab3("sweep", tmp_path / "m.h5", "--data", tmp_path / "i&<b>", "--run-id", "r")
    run = Path("runs/r")
    page, facts = Page(run / "report.html"), json.loads((run / "report.json").read_text())
    assert facts["sweep"]["layer"] == layer and sorted(facts["sweep"]["class_names"]) == sorted(names)
    jsonschema.validate(facts, SCHEMA)
    assert len(page.texts["script"]) == 2 and not [tag for tag, _ in page.tags if tag in ("img", "b")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    text = (run / "report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in text and "{{ 7 * 7 }}" in text and "49" not in facts["sentence"]
    markdown = (run / "report.md").read_text()
    assert "<script" not in markdown and "<img" not in markdown


def test_every_kind_of_run_has_a_report(
    few_digits: tuple[str, ...], fitted_model: Path, toy_files: tuple[Path, Path], invoke: Callable[..., Result]
) -> None:
    settings = ("--set", "data.scale=16", "--budget", "0.2", "--run-id", "c")
    assert invoke("compress", fitted_model, *few_digits, *settings).exit_code == 0
    model, data = toy_files
    criteria = ("--criterion", "mean_activation", "--criterion", "oracle")
    assert invoke("sweep", model, "--data", data, "--set", "data.scale=1", *criteria, "--run-id", "g").exit_code == 0
    for name in ("c", "g", "g/g-oracle"):
        facts = json.loads(Path("runs", name, "report.json").read_text())
        jsonschema.validate(facts, SCHEMA)
    compressed, group = (gather_report(Path("runs", name)) for name in ("c", "g"))
    assert compressed.compression is not None and compressed.compaction is not None
    plan = read_csv(Path("runs/c/plan.csv"))
    assert [(each.layer, str(each.n_kept)) for each in compressed.compression.plan] == [
        (row["layer"], row["n_kept"]) for row in plan
    ]
    text = Path("runs/c/report.html").read_text()
    assert "Accuracy lost against flops left" in text and f"<td>{compressed.compaction.after.parameters:,}</td>" in text
    rows = {row["run"]: row for row in read_csv(Path("runs/g/certificates.csv"))}
    assert {each.label: each.sentence for each in group.members} == {name: r["sentence"] for name, r in rows.items()}
    assert 'href="g-oracle/report.html"' in Path("runs/g/report.html").read_text()


def test_keras_is_not_loaded_and_an_unfinished_run_has_none(own: Path, invoke: Callable[..., Result]) -> None:
    (own / "report.html").unlink()
    check = (
        "import sys; from pathlib import Path; from lab3.views.report import write_report; "
        f"write_report(Path({str(own)!r}))"
        "; print([name for name in ('keras', 'tensorflow', 'wandb', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and (own / "report.html").exists()
    (own / "summary.json").unlink()
    result = invoke("report", own)
    assert result.exit_code == 75 and f"go on with `lab3 resume {own}`" in result.stderr
    damaged = invoke("report", own.parent / "nothing")
    assert damaged.exit_code == 78


def test_a_summary_that_lacks_something_is_an_error_in_words(toy: Path, invoke: Callable[..., Result]) -> None:
    (toy / "summary.json").write_text("{}")
    result = invoke("report", toy)
    assert result.exit_code == 78 and "summary.json cannot be read" in result.stderr


def test_ticks_and_lines_stand_where_the_values_are() -> None:
    assert ticks(0, 1, most=3) == [0.0, 0.5, 1.0] and ticks(0, 7) == [0.0, 2.0, 4.0, 6.0]
    chart = Chart("t", "x", "y", [Line("a", [0, 5, 10], [0, 0.5, 1], "c0")], x_max=10, y_max=1)
    assert (chart.x(0), chart.x(10), chart.y(1)) == (58, 866, 12)
    assert 'points="58.0,316.0 462.0,164.0 866.0,12.0"' in str(draw(chart))
    left = Chart("t", "x", "y", [], x_max=1, y_max=1, is_percent_left=True)
    assert (left.x(1), left.x(0)) == (58, 866)


def test_pictures_stand_row_by_row() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, np.newaxis, np.newaxis] + np.array([[10, 20]], np.uint8)
    assert stitch(pictures).tolist() == [[10, 20, 11, 21, 12, 22], [13, 23, 14, 24, 0, 0]]


def test_a_list_tells_finished_killed_and_running_runs(toy: Path, invoke: Callable[..., Result]) -> None:
    killed = unfinish(toy, 2)
    rows = json.loads(invoke("runs", toy.parent, "--json").stdout)
    states = {row["path"]: (row["state"], row["certified_k"], row["baseline"]) for row in rows}
    assert states == {"toy": ("finished", 0, 1.0), killed.name: ("killed at 2", None, None)}
    run = RunDir(killed)
    with run.lock():
        held = subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path; from lab3.record.rundir import RunDir\n"
             f"from lab3.record.state import read_state; print(read_state(RunDir(Path({str(killed)!r}))))"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert held.stdout == "running at 2\n" and str(read_state(run)) == "killed at 2"
    (killed / "manifest.json").write_text("{}")
    assert read_state(run).condition == "damaged"
    shown = invoke("runs", toy.parent).stdout
    assert re.search(r"toy\s+finished\s+conv\s+mean_activation\s+0 of 4\s+1\.0000", shown), shown
    shutil.rmtree(toy.parent)
    assert invoke("runs", toy.parent).exit_code == 78


def test_a_stopped_process_is_told_from_one_that_works(toy: Path) -> None:
    run = RunDir(unfinish(toy, 1))
    with holding(run.path) as holder:
        assert read_state(run).condition == "running"
        stop(holder)
        assert read_state(run).condition == "stalled"
    assert read_state(run).condition == "killed"


def test_show_gives_the_answer_and_what_to_do_next(own: Path, invoke: Callable[..., Result]) -> None:
    summary = read_summary(RunDir(own))
    *table, sentence, last = invoke("show", own).stdout.splitlines()
    assert last == str(own / "report.html")
    if summary["certified"]["n_pruned"]:
        assert sentence == f"next: `lab3 compact {own}` writes the smaller model" and table[-1] == summary["sentence"]
    else:
        assert sentence == summary["sentence"]
    assert any(line.split()[:3] == ["0", "0", f"{summary['baseline']['accuracy']:.4f}"] for line in table)
    assert json.loads(invoke("show", own, "--json").stdout) == json.loads((own / "report.json").read_text())


def test_sweeps_are_compared_image_by_image() -> None:
    right = np.ones((2, 20), bool)
    one, other = right.copy(), right.copy()
    one[1, :8], other[1, 6:8], other[1, 19] = False, False, False
    [first, second] = compare_sweeps(make_points(one), make_points(other), 0.95)
    assert (first.only_first, first.only_second, first.p, first.difference) == (0, 0, 1.0, 0.0)
    # Image 19 is right in the first alone, images 0 to 5 in the second alone: 2 (1 + 7) / 2**7.
    assert (second.only_first, second.only_second, second.difference) == (1, 6, 0.25)
    assert second.p == pytest.approx(16 / 128) and second.low < 0.25 < second.high
    assert second.low == pytest.approx(-compare_sweeps(make_points(other), make_points(one), 0.95)[1].high)


def test_compare_names_settings_and_refuses_other_images(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    model, data = toy_files
    common = ("sweep", model, "--set", "data.scale=1")
    assert invoke(*common, "--data", data, "--run-id", "a").exit_code == 0
    assert invoke(*common, "--data", data, "--criterion", "random", "--run-id", "b").exit_code == 0
    [found] = json.loads(invoke("compare", "runs/a", "runs/b", "--json", "--figure", "c.svg").stdout)
    assert found["settings"] == ["prune.criterion was 'mean_activation', now 'random'"]
    a, b = (read_points(RunDir(Path("runs", name))) for name in "ab")
    assert [p["second"] - p["first"] for p in found["points"]] == [
        y.accuracy - x.accuracy for x, y in zip(a, b, strict=True)
    ]
    assert Path("c.svg").exists()
    shown = invoke("compare", "runs/a", "runs/b").stdout.splitlines()
    assert shown[:2] == ["a and b", "  prune.criterion was 'mean_activation', now 'random'"] and len(shown) == 7

    arrays = np.load(data)
    np.savez(tmp_path / "other.npz", x_test=arrays["x_test"][::-1], y_test=arrays["y_test"][::-1])
    assert invoke(*common, "--data", tmp_path / "other.npz", "--run-id", "c").exit_code == 0
    other = invoke("compare", "runs/a", "runs/c")
    assert other.exit_code == 0 and "not compared image by image: their test images are not the same" in other.stdout
    assert invoke("compare", "runs/a").exit_code == 2
    assert invoke("compare", "runs/a", "runs/b", "--figure", "c.gif").exit_code == 78


def test_a_run_that_got_worse_ends_with_1(fitted_model: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    common = ("--data", "digits", "--set", "data.scale=16.0", "--set", "sweep.schedule=0:C:4")
    assert invoke("sweep", fitted_model, *common, "--run-id", "before").exit_code == 0
    model = keras.saving.load_model(fitted_model, compile=False)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.roll(kernel, 1, axis=1), np.roll(bias, 1)])
    model.save(tmp_path / "worse.keras")
    assert invoke("sweep", tmp_path / "worse.keras", *common, "--run-id", "after").exit_code == 0
    same = invoke("compare", "runs/before", "--against", "runs/before")
    assert same.exit_code == 0 and "(p = 1)" in same.stdout and not same.stderr
    worse = invoke("compare", "runs/after", "--against", "runs/before")
    assert worse.exit_code == 1 and "worse: accuracy fell from 0.7" in worse.stderr
    found = json.loads(invoke("compare", "runs/after", "--against", "runs/before", "--json").stdout)
    before, after = (read_summary(RunDir(Path("runs", name))) for name in ("before", "after"))
    baseline = found["baseline"]
    assert (baseline["first"], baseline["second"]) == (before["baseline"]["accuracy"], after["baseline"]["accuracy"])
    assert found["certified_share"] == [before["certified"]["share"], after["certified"]["share"]]
    # More than the limit alone is not enough, nor is more than chance alone.
    assert invoke("compare", "runs/after", "--against", "runs/before", "--drop", "1", "--share", "1").exit_code == 0
    assert invoke("compare", "runs/before", "runs/after", "--against", "runs/before").exit_code == 2
