"""Write experiments/jobs/constraints.txt: the versions that pip chooses now for lab3 and its dashboard."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# pip install --constraint experiments/jobs/constraints.txt .
#
# The versions that the images have; `make constraints` writes them again.
"""


def main() -> None:
    """Ask pip, which installs nothing, and write what it says."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ("--quiet", "--dry-run", "--ignore-installed", "--report", str(report))
        subprocess.run([sys.executable, "-m", "pip", "install", *options, f"{ROOT}[serve]"], check=True)
        found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    rows = sorted(f"{each['name'].lower()}=={each['version']}\n" for each in found if each["name"] != "lab3")
    (ROOT / "experiments" / "jobs" / "constraints.txt").write_text(HEAD + "".join(rows))


if __name__ == "__main__":
    main()
