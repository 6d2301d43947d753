"""What `make site` does beside MkDocs: README.md is the front page, and linked files outside docs/ come along."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "LICENSE", "benchmarks/RESULTS.md", "experiments/LOG.md", "experiments/**/*.yaml")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/, below the names that they have in the repository."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for path in sorted(each for pattern in OUTSIDE for each in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are where docs/ is the top folder."""
    if page.file.generated_by is not None:
        return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"]({up}../", f"]({up}")
