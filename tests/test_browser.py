"""Pages of real runs in a real browser, from the disk: pointer, keys, tables, phone, dark, paper, no script."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from lab3.inputs.model_files import save_model
from tests.conftest import MakeOnce, run_lab3
from tests.folders import unfinish

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def wide(make_once: MakeOnce) -> Path:
    """The report of a sweep of 512 channels, 12 by 12 maps, on 300 images of ten classes."""

    def make(folder: Path) -> None:
        keras.utils.set_random_seed(0)
        layers = [keras.Input((14, 14, 3)), keras.layers.Conv2D(512, 3, activation="relu", name="wide")]
        model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
        images_nhwc = np.random.default_rng(0).integers(0, 256, (300, 14, 14, 3)).astype(np.uint8)
        labels_n = np.asarray(model(images_nhwc / np.float32(255))).argmax(axis=1)
        model.layers[-1].activation = keras.activations.softmax
        save_model(model, folder / "wide.h5")
        np.savez(folder / "wide.npz", x_test=images_nhwc, y_test=labels_n)
        run_lab3("sweep", folder / "wide.h5", "--data", folder / "wide.npz", "--run-id", "wide")

    return make_once("wide", make, renders=True) / "runs" / "wide" / "report.html"


class Opened:
    """A page of the disk, or at an address, with what it said and asked for."""

    def __init__(self, browser: Any, place: Path | str, width: int = 1100, **settings: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(place if isinstance(place, str) else place.resolve().as_uri())

    def check_quiet(self) -> None:
        """It said nothing, and asked for nothing but itself and the pictures inside it."""
        assert self.said == []
        assert [url for url in self.asked[1:] if not url.startswith("data:")] == []


@pytest.fixture
def digits(digits_folder: Path) -> Path:
    return digits_folder / "run" / "report.html"


def test_keys_pointer_and_slider_choose_a_k(browser: Any, digits: Path) -> None:
    opened = Opened(browser, digits)
    page, read = opened.page, lambda: opened.page.inner_text("#readout")
    start = int(page.input_value("#k"))
    assert read().startswith(f"K = {start}: accuracy ")
    chart = page.locator("svg.follows").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert read().startswith(f"K = {start + 1}: ")
    page.keyboard.press("End")
    assert read().startswith("K = 31: ") and page.inner_text("#tiles-k") == "K = 31"
    assert page.locator(".tiles .is-pruned").count() == 31
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    assert read().startswith("K = 0: ") and page.locator(".tiles .is-pruned").count() == 0
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * (58 + (866 - 58) * 10 / 31) / 880, box["y"] + 100)
    assert read().startswith("K = 10: ") and page.locator(".tiles .is-pruned").count() == 10
    page.focus("#k")
    page.keyboard.press("ArrowRight")
    assert read().startswith("K = 11: ")
    assert page.get_attribute("#k", "aria-valuetext") == read()
    xs = page.eval_on_selector_all(".cursor", "all => all.map(line => line.getAttribute('x1'))")
    assert len(xs) == 3 and len(set(xs)) == 1
    opened.check_quiet()


def test_the_channel_table_sorts_and_finds(browser: Any, wide: Path) -> None:
    opened = Opened(browser, wide)
    page = opened.page
    page.get_by_text("Table of all 512 channels").click()

    def column(number: int) -> list[float]:
        cells = page.eval_on_selector_all(
            f"#channels tbody td:nth-child({number})", "all => all.map(c => c.textContent)"
        )
        return [float("inf") if cell == "-" else float(cell.replace(",", "")) for cell in cells]

    assert column(4) == list(range(512)), "the least important first"
    for expected in (sorted(column(3)), sorted(column(3))[::-1]):
        page.get_by_role("button", name="importance").click()
        assert column(3) == expected
    assert page.get_attribute("#channels th:nth-child(3)", "aria-sort") == "descending"
    page.fill("#find", "137")
    assert page.locator("#channels tbody tr:visible td:first-child").all_inner_texts() == ["137"]
    opened.check_quiet()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(browser: Any, digits: Path, wide: Path, width: int, scheme: str) -> None:
    for path in (digits, wide):
        opened = Opened(browser, path, width, color_scheme=scheme)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        opened.check_quiet()


def test_without_a_script_all_is_there(browser: Any, digits: Path) -> None:
    opened = Opened(browser, digits, java_script_enabled=False)
    page = opened.page
    assert page.locator("svg.chart").count() == 4 and page.locator(".tiles .tile").count() == 32
    assert not page.locator("#k").is_visible()
    page.get_by_text("Table of all 32 K").click()
    assert page.locator("tbody").first.locator("tr").count() == 32
    opened.check_quiet()


def test_it_can_be_printed(browser: Any, digits: Path, tmp_path: Path) -> None:
    opened = Opened(browser, digits)
    opened.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) in range(2, 10)
    opened.check_quiet()


def test_a_page_of_512_channels_is_small(wide: Path) -> None:
    assert wide.stat().st_size <= 1_500_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Any, digits: Path, fitted_model: Path, few_digits: tuple[str, ...], scheme: str
) -> None:
    """Rules of accessibility: names, contrast, order of headings, keyboard; with every table open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    settings = ("--set", "data.scale=16", "--budget", "0.2", "--run-id", "c")
    run_lab3("compress", fitted_model, *few_digits, *settings)
    criteria = ("--criterion", "mean_activation", "--criterion", "oracle")
    sweep = ("--set", "data.scale=16", "--set", "sweep.schedule=0:C:4", "--run-id", "g")
    run_lab3("sweep", fitted_model, *few_digits, *criteria, *sweep)
    pages: list[Path | str] = [digits, Path("runs/c/report.html"), Path("runs/g/report.html")]
    with serving(Path("runs")) as address:
        for place in [*pages, address, f"{address}compare?run=g/g-oracle"]:
            # Its script comes from outside the page.
            opened = Opened(browser, place, color_scheme=scheme, bypass_csp=True)
            for summary in opened.page.query_selector_all("summary"):
                summary.click()
            found = axe.run(opened.page).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], place


def test_the_dashboard_follows_a_run(browser: Any, toy: Path) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    # Pages ask every two seconds, on a machine that can be busy.
    expect.set_options(timeout=30_000)
    run = unfinish(toy, 2)
    with serving(toy.parent) as address:
        opened = Opened(browser, address)
        page = opened.page
        state = page.locator(f'tr[data-run="{run.name}"] .state')
        assert state.inner_text() == "killed at 2" and page.inner_text("#count") == "2 of 2 runs"
        live = Opened(browser, f"{address}run/{run.name}")
        last = live.page.locator("#live-last")
        expect(last).to_have_text("K = 1: accuracy 1.0000, 2 points so far")
        # As the process that resumes it would.
        lines = (toy / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (run / "journal.jsonl").write_bytes(b"".join(lines[:4]))
        expect(last).to_have_text("K = 2: accuracy 0.7500, 3 points so far")
        expect(state).to_have_text("killed at 3")
        shutil.copy(toy / "summary.json", run)
        shutil.copy(toy / "journal.jsonl", run)
        live.page.wait_for_selector("text=Accuracy over K")
        page.check('input[value="toy"]')
        page.get_by_role("button", name="Compare the chosen runs").click()
        assert page.locator("svg.chart polyline").count() == 1
        page.go_back()
        page.get_by_role("link", name="toy", exact=True).click()
        page.focus("#k")
        page.keyboard.press("End")
        assert page.inner_text("#readout").startswith("K = 3: ")
        assert opened.said == live.said == [] and all(
            url.startswith(address) for url in opened.asked if "data:" not in url
        )


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of the service over a folder, in a process of its own."""
    command = [sys.executable, "-m", "lab3", "dashboard", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[0]
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def firefox(folder: Path) -> Iterator[Any]:
    """Debian's Firefox, driven by Mozilla's own client: Playwright's protocol needs a patched one, or a newer one."""
    driver = pytest.importorskip("marionette_driver.marionette", reason="`make install-browser` installs Firefox")
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("Firefox is not here; `make install-browser` installs it")
    (folder / "user.js").write_text(
        'user_pref("marionette.port", 0); user_pref("network.captive-portal-service.enabled", false);'
        'user_pref("network.connectivity-service.enabled", false);'
    )
    options = ("--headless", "--marionette", "--no-remote", "-remote-allow-system-access", "--profile", str(folder))
    with (folder / "log").open("w") as log, subprocess.Popen([program, *options], stdout=log, stderr=log) as process:
        try:
            port = folder / "MarionetteActivePort"
            deadline_s = time.monotonic() + 60
            while not (port.exists() and port.read_text()) and time.monotonic() < deadline_s:
                signal.sigtimedwait([], 0.1)
            client = driver.Marionette(host="127.0.0.1", port=int(port.read_text()))
            client.start_session()
            yield client
        finally:
            process.kill()


def test_firefox_shows_the_same_page(digits: Path, tmp_path: Path) -> None:
    with firefox(tmp_path) as client:
        client.navigate(digits.resolve().as_uri())

        def text(name: str) -> str:
            found: str = client.execute_script("return document.getElementById(arguments[0]).innerText", [name])
            return found

        def press(*keys: str) -> None:
            for key in keys:
                client.actions.sequence("key", "keys").key_down(key).key_up(key).perform()

        client.execute_script("document.querySelector('svg.follows').focus()")
        press("\ue010")  # End
        assert text("readout").startswith("K = 31: ")
        press("\ue011", "\ue014")  # Home, right
        assert text("readout").startswith("K = 1: ")
        client.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        headings = client.execute_script(
            "const table = [...document.querySelectorAll('table')].find(each => each.querySelector('th button'));"
            "const cells = () => [...table.tBodies[0].rows].map(row => row.cells[0].innerText);"
            "const before = cells(); table.querySelector('th button').click(); return [before, cells()];"
        )
        assert sorted(headings[0]) == sorted(headings[1]) and headings[0] != headings[1]
        for width in (450, 1366):
            client.set_window_rect(width=width, height=844)
            wide, inner = client.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
            assert wide <= inner
        with client.using_context("chrome"):
            client.execute_script("Services.prefs.setIntPref('layout.css.prefers-color-scheme.content-override', 0)")
            said = client.execute_script(
                "return Services.console.getMessageArray().map(String).filter(each => each.includes('report.html'))"
            )
        # the page's process hears of the preference later than the one that set it
        dark = client.execute_async_script(
            "const [done] = arguments, query = matchMedia('(prefers-color-scheme: dark)');"
            "const answer = () => { if (query.matches) done(getComputedStyle(document.body).backgroundColor); };"
            "query.addEventListener('change', answer); answer();"
        )
        assert said == [] and max(map(int, re.findall(r"\d+", dark)[:3])) < 60
