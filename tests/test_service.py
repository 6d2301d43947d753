"""The web service over a folder of runs: what it shows, what it follows, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from click.testing import Result
from starlette.testclient import TestClient

from lab3.record.journal import encode_row, read_journal
from lab3.views.dashboard import make_service
from lab3.views.report import render_report
from tests.folders import holding, read_csv, stop, unfinish

Client = Callable[..., TestClient]


@pytest.fixture
def client(toy: Path) -> Client:
    """A client of the service over the folder of `toy`, with settings of the service."""
    return lambda **settings: TestClient(make_service(toy.parent, **settings), base_url="http://localhost:8000")


def test_it_lists_shows_and_gives_what_the_folder_holds(toy: Path, client: Client) -> None:
    killed = unfinish(toy, 2)
    web = client()
    page = web.get("/").text
    assert '<a href="/run/toy">toy</a>' in page and "2 of 2 runs" in page and "killed at 2" in page
    filtered = web.get("/", params={"condition": "killed"}).text
    assert "1 of 2 runs" in filtered and f'data-run="{killed.name}"' in filtered and 'data-run="toy"' not in filtered
    assert "0 of 2 runs" in web.get("/", params={"q": "nothing"}).text
    # The report is made by the service: one that lies in the folder can be anybody's.
    (toy / "report.html").write_text("<script>alert(1)</script>")
    shown = web.get("/run/toy")
    assert (
        shown.status_code == 200
        and "alert(1)" not in shown.text
        and json.loads((toy / "summary.json").read_text())["sentence"].replace(" %", "\u00a0%") in shown.text
    )
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    assert "script-src 'sha256-" in shown.headers["content-security-policy"]
    got = web.get("/file/toy", params={"name": "results.csv"})
    assert got.content == (toy / "results.csv").read_bytes()
    assert got.headers["content-disposition"] == 'attachment; filename="toy-results.csv"'
    compared = web.get("/compare", params={"run": ["toy", killed.name]}).text
    assert compared.count("<polyline") == 1 and "Accuracy against the share pruned" in compared
    assert web.get("/healthz").text == "ok\n"
    counted = web.get("/metrics").text
    assert 'lab3_runs{state="finished"} 1.0' in counted and 'lab3_runs{state="killed"} 1.0' in counted


def test_a_page_is_rendered_once_for_all_who_ask_and_again_when_its_run_has_changed(
    toy: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Path] = []

    def record(path: Path) -> dict[str, bytes]:
        rendered.append(path)
        return render_report(path)

    monkeypatch.setattr("lab3.views.dashboard.service.render_report", record)
    web, together = client(), Barrier(4)

    def ask(_number: int) -> int:
        together.wait()
        return web.get("/run/toy").status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [200] * 4
    assert rendered == [toy]
    os.utime(toy / "summary.json", (1, 1))
    assert web.get("/run/toy").status_code == web.get("/run/toy").status_code == 200 and rendered == [toy, toy]


def test_a_compressed_network_and_a_group_have_their_rows_and_page(
    toy: Path, compressed_folder: Path, client: Client
) -> None:
    group = toy.parent / "g"
    for label in ("a", "b"):
        shutil.copytree(toy, group / f"g-{label}")
    run = Path(shutil.copytree(compressed_folder / "runs" / "c", toy.parent / "c"))
    web = client()
    rows = {row["path"]: row for row in web.get("/api/runs").json()["runs"]}
    plan = read_csv(run / "plan.csv")
    pruned, channels = (sum(int(row[name]) for row in plan) for name in ("n_pruned", "n_channels"))
    assert rows["c"]["certified_share"] == pruned / channels > 0
    proof = json.loads((run / "compact" / "proof.json").read_text())
    assert rows["c"]["parameters_left"] == proof["after"]["parameters"] / proof["before"]["parameters"] < 1
    assert 'href="/group/g"' in web.get("/").text
    page = web.get("/group/g")
    assert page.status_code == 200 and "Runs of g" in page.text
    assert 'href="/run/g/g-a"' in page.text and 'href="/run/g/g-b"' in page.text
    for name in ("c", "toy", "none", "..", "g%2F..%2F..", "."):
        assert web.get(f"/group/{name}").status_code in (404, 200) and "Runs of" not in web.get(f"/group/{name}").text


def test_only_what_is_new_is_sent(toy: Path, client: Client) -> None:
    run, web = unfinish(toy, 2), client()
    first = web.get("/api/runs").json()
    assert {row["path"] for row in first["runs"]} == {"toy", run.name}
    again = web.get("/api/runs", params={"since": first["version"]}).json()
    assert again["runs"] == [] and again["version"] > first["version"]
    points = web.get(f"/api/points/{run.name}").json()["points"]
    assert [(p["k"], p["correct"], p["total"], p["n_pruned"]) for p in points] == [(0, 4, 4, 0), (1, 4, 4, 1)]
    rows = read_journal(toy / "journal.jsonl")
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    third = encode_row({name: value for name, value in rows[2].items() if name != "crc32"})
    (run / "journal.jsonl").write_bytes(b"".join(lines[:3]) + third + b'{"k":3,"corr')
    assert [p["k"] for p in web.get(f"/api/points/{run.name}", params={"after": 2}).json()["points"]] == [2]
    changed = web.get("/api/runs", params={"since": again["version"]}).json()["runs"]
    assert [(row["path"], row["state"]) for row in changed] == [(run.name, "killed at 3")]
    with holding(run) as holder:
        assert "running at 3" in web.get("/").text
        stop(holder)
        assert "stalled at 3" in web.get("/").text
    assert "killed at 3" in web.get("/").text and "lab3 resume" in web.get(f"/run/{run.name}").text


def test_other_methods_hosts_and_pages_are_refused(client: Client) -> None:
    web = client()
    for method in ("post", "put", "delete", "patch"):
        assert getattr(web, method)("/").status_code == 405
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "LOCALHOST.", "[::2]", "127.0.0.2"):
        assert web.get("/api/runs", headers={"Host": host}).status_code == 421, host
    for host in ("localhost", "LocalHost:1", "127.0.0.1:8000", "[::1]:8000"):
        assert web.get("/api/runs", headers={"Host": host}).status_code == 200, host
    for origin in ("http://evil.example", "null", "http://localhost:9999", "http://localhost:8000.evil.example"):
        assert web.get("/api/runs", headers={"Origin": origin}).status_code == 403, origin
    assert web.get("/api/runs", headers={"Origin": "http://localhost:8000"}).status_code == 200
    headers = web.get("/").headers
    assert headers["x-frame-options"] == "DENY" and "script-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers


def test_a_token_is_asked_for(client: Client, invoke: Callable[..., Result], tmp_path: Path) -> None:
    web = client(token="secret-of-16-letters", hosts=["lab.example"])
    ask: dict[str, Any] = {"headers": {"Host": "lab.example"}}
    assert web.get("/healthz", **ask).status_code == 200
    for path in ("/", "/api/runs", "/run/toy", "/file/toy?name=results.csv", "/metrics", "/?token=secret", "/?token="):
        assert web.get(path, **ask).status_code == 401, path
    assert web.get("/", headers={"Host": "lab.example", "Authorization": "Bearer secret"}).status_code == 401
    allowed = {"Host": "lab.example", "Authorization": "Bearer secret-of-16-letters"}
    assert web.get("/", headers=allowed).status_code == 200
    came = web.get("/?token=secret-of-16-letters", follow_redirects=False, **ask)
    assert (came.status_code, came.headers["location"]) == (303, "/")
    assert "HttpOnly" in came.headers["set-cookie"] and "SameSite=strict" in came.headers["set-cookie"]
    for options in (("--host", "0.0.0.0"), ("--host", "0.0.0.0", "--token", "short")):
        refused = invoke("dashboard", "serve", tmp_path, *options)
        assert refused.exit_code == 78 and "needs a --token of at least 16 characters" in refused.stderr
    assert invoke("dashboard", "serve", tmp_path / "nothing").exit_code == 78


OUTSIDE = (
    "..", "../secret", "../../etc", "%2e%2e/secret", "..%2fsecret", "..%5csecret", "toy/..", "toy/../../secret", "/etc",
    "//etc", "toy%00", ".", "", "toy/", "linked", "secret",
)  # fmt: skip
FILES = (
    "../secret.txt", "..%2fsecret.txt", "/etc/passwd", "manifest.json", "config.yaml", "journal.jsonl", "report.html",
    "compact/../../secret.txt", "results.csv/", "./results.csv", "model.h5", "", "results.csv\x00", "wandb",
)  # fmt: skip


STRANGE = {"pipe", "zero", "link", "json", "deep", "huge"}


@pytest.fixture
def strange(toy: Path) -> Iterator[Path]:
    """The folder of `toy`, with links out of it, pipes and devices, and a secret beside it."""
    runs = toy.parent
    (runs.parent / "secret.txt").write_text("the secret")
    shutil.copytree(toy, runs.parent / "secret")
    (runs / "linked").symlink_to(runs.parent / "secret")
    for name in STRANGE:
        shutil.copytree(toy, runs / name)
    for name in ("pipe/manifest.json", "zero/summary.json", "link/journal.jsonl"):
        (runs / name).unlink()
    os.mkfifo(runs / "pipe/manifest.json")
    (runs / "zero/summary.json").symlink_to("/dev/zero")
    (runs / "link/journal.jsonl").symlink_to("/etc/passwd")
    (runs / "json/summary.json").write_text('{"certified": [], "baseline": 3}')
    (runs / "deep/summary.json").write_text("[" * 100_000)
    os.truncate(runs / "huge/journal.jsonl", 1 << 40)
    yield runs


def test_nothing_outside_the_folder_is_read(strange: Path, client: Client) -> None:
    web = client()
    listed = {row["path"]: row["condition"] for row in web.get("/api/runs").json()["runs"]}
    assert listed.pop("toy") == "finished" and set(listed) == STRANGE
    assert set(listed.values()) == {"damaged"}
    for name in OUTSIDE:
        for place in ("run", "file", "api/points"):
            answer = web.get(f"/{place}/{name}", params={"name": "results.csv"} if place == "file" else None)
            assert answer.status_code in (307, 404) or "Runs" in answer.text, (place, name, answer.text[:200])
            assert "the secret" not in answer.text and "0,0,4,4" not in answer.text, (place, name)
    for name in FILES:
        assert web.get("/file/toy", params={"name": name}).status_code == 404, name
    (strange / "toy" / "results.csv").unlink()
    (strange / "toy" / "results.csv").symlink_to(strange.parent / "secret.txt")
    assert web.get("/file/toy", params={"name": "results.csv"}).status_code == 404
    (strange / "toy" / "journal.jsonl").write_text("no journal\nat all\n")
    assert "No finished sweep is chosen" in web.get("/compare?run=toy").text
    for name in listed:
        answer = web.get(f"/run/{name}")
        assert answer.status_code in (200, 404) and "root:" not in answer.text


def test_names_of_strangers_are_text(toy: Path, client: Client) -> None:
    name = 'x"><img src=x onerror=alert(1)>'
    summary = json.loads((toy / "summary.json").read_text())
    (toy / "summary.json").write_text(json.dumps({**summary, "layer": name, "sentence": name}))
    shutil.copytree(toy, toy.parent / name)
    web = client()
    for path in ("/", "/run/toy", "/compare?run=toy", f"/?q={name}", "/?layer=" + name, "/compare?run=" + name):
        text = web.get(path).text
        assert "<img" not in text and ("&lt;img" in text or path.startswith("/compare")), path
    metrics = web.get("/metrics").text
    assert name not in metrics


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_process_serves_and_ends(toy: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lab3", "dashboard", "serve", str(toy.parent), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}api/runs", timeout=20) as answer:
                rows = json.loads(answer.read())["runs"]
            assert [(row["path"], row["state"]) for row in rows] == [("toy", "finished")]
        finally:
            process.send_signal(number)
        errors = process.stderr.read()
    assert (errors, process.returncode) == ("", 0)


def test_many_runs_are_read_once(toy: Path, client: Client) -> None:
    for number in range(30):
        shutil.copytree(toy, toy.parent / f"copy-{number}")
    web, reads = client(), []
    original = Path.read_bytes

    def read(self: Path, *args: Any) -> bytes:
        reads.append(self.name)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        assert len(web.get("/api/runs").json()["runs"]) == 31
        assert reads.count("manifest.json") == 31 and "journal.jsonl" not in reads
        reads.clear()
        assert web.get("/api/runs?since=0").json()["version"] == 2 and reads == []
