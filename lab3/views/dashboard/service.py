"""The pages of the service and what they ask for."""

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lab3.errors import Lab3Error
from lab3.record.listing import Listed
from lab3.record.readers import read_points
from lab3.record.rundir import RunDir
from lab3.record.state import Condition
from lab3.views.dashboard.guard import Guard
from lab3.views.dashboard.watch import DOWNLOADS, Watch, is_plain
from lab3.views.report import render_report
from lab3.views.report.facts import Member
from lab3.views.report.plots import draw_members

_FILTERS = ("condition", "kind", "layer", "criterion", "effect")
_MOST_COMPARED, _MOST_PAGES = 12, 16


def make_service(
    folder: Path, *, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]"), token: str | None = None
) -> Starlette:
    """The service over the runs in `folder` for these names of this machine; with a `token` only for those who give it.

    It writes nothing. Only runs that stand in the folder are shown, by their names; of them only plain files are read.
    """
    service = _Service(folder)
    routes = [
        Route("/", service.index),
        Route("/api/runs", service.runs),
        Route("/api/points/{run:path}", service.points),
        Route("/run/{run:path}", service.run),
        Route("/file/{run:path}", service.file),
        Route("/compare", service.compare),
        Route("/group/{group}", service.group),
        Route("/healthz", service.healthz),
        Route("/metrics", service.metrics),
        Route("/static/{name}", service.static),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts, token=token)])


class _Service:
    """What answers. Functions without `async` run on threads, so that a large page holds nobody up."""

    def __init__(self, folder: Path) -> None:
        self._watch = Watch(folder)
        # The time of change is part of the key, so that a changed run is rendered again.
        self._render = lru_cache(maxsize=_MOST_PAGES)(lambda path, _mtime_s: render_report(path)["report.html"])
        self._render_lock = threading.Lock()
        self._templates = Environment(
            loader=PackageLoader("lab3.views.dashboard"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters["short"] = _short
        self._registry = CollectorRegistry()
        self._n_runs = Gauge("lab3_runs", "Runs in the folder by state.", ["state"], registry=self._registry)
        self._looks = Counter("lab3_looks", "How often the folder was looked at.", registry=self._registry)
        self._look_s = Gauge("lab3_look_seconds", "How long the last look took.", registry=self._registry)

    def index(self, request: Request) -> Response:
        version, looked = self._look()
        rows = [row for row, _ in looked]
        chosen = {name: request.query_params.get(name, "") for name in (*_FILTERS, "q")}
        shown = [row for row in rows if _fits(row, chosen)]
        options = {name: sorted({value for row in rows if (value := getattr(row, name))}) for name in _FILTERS}
        return self._page("index.html", rows=shown, n_all=len(rows), chosen=chosen, options=options, version=version)

    def runs(self, request: Request) -> Response:
        """The rows that changed behind the look `since`."""
        since = _number(request.query_params.get("since"))
        this, rows = self._look()
        changed = [vars(row) for row, version in rows if version > since]
        return JSONResponse({"version": this, "runs": changed, "n_all": len(rows)})

    def points(self, request: Request) -> Response:
        """The points of a run behind the first `after`."""
        name, after = request.path_params["run"], _number(request.query_params.get("after"))
        if not name or self._find(name) is None:
            return _missing()
        return JSONResponse({"points": self._watch.points_after(name, after)})

    def run(self, request: Request) -> Response:
        name = request.path_params["run"]
        found = self._find(name)
        if found is None:
            return _missing()
        path, row = found
        if row.condition != "finished":
            return self._page("live.html", row=row)
        try:
            content = self._report(path)
        except Lab3Error as error:
            return self._page("damaged.html", row=row, error=str(error))
        page = content.decode().replace('<p class="kind">', '<p class="kind"><a href="/">all runs</a> · ', 1)
        # The page's own policy, which names its one script; what a meta element cannot say comes with it.
        own = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
        policy = (
            own.group(1).replace("&#39;", "'") if own else "default-src 'none'"
        ) + "; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    def file(self, request: Request) -> Response:
        """A file of a run, the `name` in the query."""
        found, name = self._find(request.path_params["run"]), request.query_params.get("name", "")
        if found is None or name not in DOWNLOADS or not is_plain(found[0]):
            return _missing()
        path = found[0] / name
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            return _missing()
        run_id = re.sub(r"[^A-Za-z0-9_.-]", "_", found[1].run_id)
        return FileResponse(path, media_type="application/octet-stream", filename=f"{run_id}-{path.name}")

    def compare(self, request: Request) -> Response:
        return self._compare("Runs compared", request.query_params.getlist("run"))

    def group(self, request: Request) -> Response:
        """The runs in one folder below: those of a group or a grid."""
        group = request.path_params["group"]
        names = sorted(row.path for row, _ in self._look()[1] if row.path.startswith(f"{group}/"))
        if not names:
            return _missing()
        some = f" (the first {_MOST_COMPARED} of {len(names)})" if len(names) > _MOST_COMPARED else ""
        return self._compare(f"Runs of {group}{some}", names)

    def _compare(self, title: str, names: Sequence[str]) -> Response:
        members = []
        for name in names[:_MOST_COMPARED]:
            found = self._find(name)
            if found is None or found[1].layer is None or found[1].n_channels is None:
                continue
            # A journal that cannot be read has no curve; the run's own page says why.
            with suppress(Lab3Error):
                members.append(_member(*found))
        chart = draw_members([replace(each, label=_short(each.label)) for each in members]) if members else None
        return self._page("compare.html", title=title, chart=chart, members=members)

    def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def metrics(self, _request: Request) -> Response:
        counts: dict[str, int] = {}
        for row, _ in self._look()[1]:
            counts[row.condition] = counts.get(row.condition, 0) + 1
        for state in get_args(Condition):
            self._n_runs.labels(state).set(counts.get(state, 0))
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    def static(self, request: Request) -> Response:
        kinds = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "report.css": "text/css"}
        name = request.path_params["name"]
        if name not in kinds:
            return _missing()
        package = "report" if name == "report.css" else "dashboard"
        source = Path(__file__).parents[1] / package / "templates" / name
        return Response(source.read_bytes(), media_type=kinds[name])

    def _look(self) -> tuple[int, list[tuple[Listed, int]]]:
        start = time.perf_counter()
        found = self._watch.look()
        self._looks.inc()
        self._look_s.set(time.perf_counter() - start)
        return found

    def _find(self, name: str) -> tuple[Path, Listed] | None:
        row = next((row for row, _ in self._look()[1] if row.path == name), None)
        path = self._watch.path_of(name)
        return (path, row) if row is not None and path is not None else None

    def _report(self, path: Path) -> bytes:
        """The page, made from the folder: a page that lies in it can be anybody's."""
        parts = [path / name for name in ("summary.json", "compact/proof.json")]
        changed_s = max(part.stat().st_mtime for part in parts if part.exists())
        with self._render_lock:  # one page at a time, and none twice
            return self._render(path, changed_s)

    def _page(self, name: str, **facts: object) -> Response:
        return HTMLResponse(self._templates.get_template(name).render(**facts))


def _short(path: str) -> str:
    """A run's path as a person reads it: a run of a group has the group's name in its own.

    >>> _short("grid/grid-conv-apoz")
    'grid/conv-apoz'
    """
    folder, slash, name = path.partition("/")
    return f"{folder}{slash}{name.removeprefix(f'{folder}-')}"


def _fits(row: Listed, chosen: dict[str, str]) -> bool:
    text = f"{row.path} {row.layer or ''} {row.criterion or ''}".lower()
    return chosen["q"].lower() in text and all(
        not chosen[name] or str(getattr(row, name)) == chosen[name] for name in _FILTERS
    )


def _member(path: Path, row: Listed) -> Member:
    n_channels = row.n_channels or 1
    return Member(
        label=row.path,
        run_id=row.run_id,
        layer=row.layer or "",
        criterion=row.criterion or "",
        n_channels=n_channels,
        certified_k=row.certified_k or 0,
        certified_share=row.certified_share or 0.0,
        baseline=row.baseline,
        sentence=row.sentence or "",
        curve=tuple((point.n_pruned / n_channels, point.accuracy) for point in read_points(RunDir(path))),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


def _missing() -> Response:
    return PlainTextResponse("There is no such page.\n", 404)
