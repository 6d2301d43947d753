"""Make pictures of report, dashboard and terminal in docs/images: `make pictures`, after `make install-browser`."""

import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).with_name("images")
LAB3 = [sys.executable, "-m", "lab3"]


def run(folder: Path, *args: str) -> str:
    """What a command prints."""
    return subprocess.run([*LAB3, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def terminal_svg(folder: Path) -> Path:
    """`lab3 show` as it stands in a terminal; it names a font in the network, so it is no picture to ship."""
    text = run(folder, "show", "runs/digits")
    console = Console(record=True, width=112, file=io.StringIO())
    console.print(Text(f"$ lab3 show runs/digits\n{text}"))
    console.save_svg(str(folder / "terminal.svg"), title="lab3")
    return folder / "terminal.svg"


def draw_pages(folder: Path) -> None:
    """The report, the list of the dashboard, and a terminal."""
    command = [*LAB3, "dashboard", "serve", str(folder / "runs"), "--port", "0"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    address = service.stdout.readline().split()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1060}, color_scheme="light")
        page.goto((folder / "runs/digits/report.html").as_uri())
        page.screenshot(path=IMAGES / "report.png")
        page.set_viewport_size({"width": 1100, "height": 400})
        page.goto(address)
        page.screenshot(path=IMAGES / "dashboard.png")
        page.set_viewport_size({"width": 1120, "height": 420})
        page.goto(terminal_svg(folder).as_uri())
        page.locator("svg").first.screenshot(path=IMAGES / "terminal.png")
        browser.close()
    service.send_signal(signal.SIGTERM)
    service.wait()


def main() -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        common = ("--mode", "disabled", "--run-id")
        run(folder, "run", "digits", *common, "digits")
        run(folder, "compact", "runs/digits")
        criteria = ("--criterion", "mean_activation", "--criterion", "oracle")
        run(
            folder,
            "sweep",
            "runs/digits/model.h5",
            "--data",
            "digits",
            "--set",
            "data.scale=16",
            *criteria,
            *common,
            "criteria",
        )
        draw_pages(folder)


if __name__ == "__main__":
    main()
