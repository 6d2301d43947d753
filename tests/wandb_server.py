"""A stand-in for W&B's server on loopback. What the real client says is kept; faults can be set.

It speaks as much of W&B's protocol as runs, artifacts, workspaces and reports need. Nothing is checked but the key.
"""

import base64
import contextlib
import gzip
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KEY = "local" + "0123456789abcdef" * 3
ENTITY = "tester"
Json = dict[str, Any]


@dataclass
class Fault:
    """Answer the next `times` requests that match `path` (and, if given, the operation) wrongly.

    `how`: an HTTP status, `drop` (close before the request counts) or `lose` (close after it counted).
    """

    path: str
    how: int | str
    times: int = 1
    operation: str | None = None
    n_done: int = 0


@dataclass
class Run:
    """A run as the server shows it."""

    name: str
    project: str
    number: int
    config: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    history: list[Json] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[tuple[str, str]] = field(default_factory=list)  # (logged | used, id)
    alerts: list[Json] = field(default_factory=list)
    fields: Json = field(default_factory=dict)  # group, job type, tags, notes, display name
    preempting: bool = False
    exit_code: int | None = None

    @property
    def state(self) -> str:
        if self.exit_code is None:
            return "preempting" if self.preempting else "running"
        if self.exit_code == 0:
            return "finished"
        return "preempted" if self.preempting else "failed"

    @property
    def rows(self) -> list[Json]:
        """The rows that hold a K."""
        return [row for row in self.history if "K" in row]


@dataclass
class Artifact:
    """A version of an artifact."""

    id: str
    type: str
    name: str
    digest: str
    aliases: list[str]
    metadata: Json
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: Json = field(default_factory=dict)


class WandbServer:
    """The server with all it was told; use it as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.projects: set[str] = set()
        self.views: dict[str, Json] = {}  # workspaces and reports, by id
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, bytes]] = []  # (path, operation, body)
        self.errors: list[str] = []  # of the stand-in itself: what it does not know
        self.on_request: Callable[[str, str], None] = lambda path, operation: None
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _HttpServer(("127.0.0.1", port), handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "WandbServer":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Vanish: connections are refused from now on."""
        self._http.shutdown()
        self._http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send the client here, without its long waits."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",  # the client's own
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
            "WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1",
            "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
            "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
            "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "1",
            "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MIN_SECONDS": "1",
            "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS": "1",
        }

    def add_artifact(self, name: str, type: str, files: dict[str, bytes]) -> None:
        """As if a run had logged it."""
        digests = {file: base64.b64encode(hashlib.md5(content).digest()).decode() for file, content in files.items()}
        contents = {file: {"digest": digests[file], "size": len(content)} for file, content in files.items()}
        policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
        manifest = {"version": 1, **policy, "contents": contents}
        key = f"artifact-{len(self.artifacts) + 1}"
        digest = hashlib.md5(name.encode()).hexdigest()
        self.artifacts[key] = Artifact(key, type, name, digest, ["latest"], {}, "COMMITTED", files, manifest)

    def fault_for(self, path: str, operation: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                matches = re.search(fault.path, path) and fault.operation in (None, operation)
                if matches and fault.n_done < fault.times:
                    fault.n_done += 1
                    return fault
        return None


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *request: Any) -> None:
        # A client that ended leaves connections behind.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*request)


class _Handler(BaseHTTPRequestHandler):
    owner: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_HEAD = do_GET

    def _handle(self) -> None:
        body = self._read_body()
        path = urlsplit(self.path).path
        request = json.loads(body) if path == "/graphql" else {}
        operation = request.get("operationName") or _operation_in(request.get("query", ""))
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.path, operation, body))
        owner.on_request(path, operation)
        fault = owner.fault_for(path, operation)
        if fault is not None and fault.how == "drop":
            self.close_connection = True
            return
        if fault is not None and isinstance(fault.how, int):
            self._answer(fault.how, {"error": "a fault set by a test"})
            return
        try:
            with owner.lock:
                status, answer = self._serve(path, operation, request, body)
        except Exception as error:
            status, answer = 500, {"error": repr(error)}
            self.owner.errors.append(f"{operation or path}: {error!r}")
        if fault is not None:
            self.close_connection = True
            return
        self._answer(status, answer)

    def _serve(self, path: str, operation: str, request: Json, body: bytes) -> tuple[int, Json | bytes]:
        if path.startswith("/storage/"):
            if self.command == "PUT":
                self._store(path.removeprefix("/storage/"), body)
                return 200, b""
            return 200, self._stored(path.removeprefix("/storage/"))
        if path.endswith("/metrics"):
            return 200, {}  # the client's own telemetry, which carries no key
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            return 401, {"error": "user is not logged in"}
        if path.endswith("/file_stream"):
            return 200, self._file_stream(path, json.loads(body))
        if path == "/graphql":
            variables = request.get("variables") or {}
            operations = _OPERATIONS
            if operation not in operations:
                self.owner.errors.append(f"unknown operation {operation}: {json.dumps(variables)[:200]}")
                return 400, {"errors": [{"message": f"unknown operation {operation}"}]}
            return 200, {"data": operations[operation](self.owner, variables, request.get("query", ""))}
        return 404, {"error": f"no such path {path}"}

    def _file_stream(self, path: str, content: Json) -> Json:
        run = self.owner.runs[path.split("/")[-2]]
        for name, chunk in (content.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                # The same offset again is the same line again, as after a lost answer.
                run.history[chunk["offset"] :] = lines
            elif name == "wandb-events.jsonl":
                run.events[chunk["offset"] :] = lines
            elif name == "wandb-summary.json":
                run.summary = lines[-1]
        run.preempting = content.get("preempting", run.preempting)
        if content.get("complete"):
            run.exit_code = content.get("exitcode", 0)
        return {}

    def _store(self, name: str, body: bytes) -> None:
        kind, owner_id, *rest = name.split("/", 2)
        if kind == "run":
            self.owner.runs[owner_id].files[rest[0]] = body
        elif kind == "manifest":
            self.owner.artifacts[owner_id].manifest = json.loads(body)
        else:
            self.owner.artifacts[owner_id].files[rest[0]] = body

    def _stored(self, name: str) -> bytes:
        kind, owner_id, *rest = name.split("/", 2)
        if kind == "run":
            return self.owner.runs[owner_id].files[rest[0]]
        if kind == "manifest":
            return json.dumps(self.owner.artifacts[owner_id].manifest).encode()
        return self.owner.artifacts[owner_id].files[rest[0]]

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, status: int, answer: Json | bytes) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # the client has given up
                self.wfile.write(content)


def _operation_in(query: str) -> str:
    found = re.search(r"(?:query|mutation)\s+(\w+)", query)
    return found.group(1) if found else ""


def _viewer(server: WandbServer, variables: Json, query: str) -> Json:
    return {
        "viewer": {
            "id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "tester@example.com", "name": ENTITY,
            "admin": False, "flags": "{}", "teams": {"edges": [{"node": {"name": ENTITY, "id": "RW50aXR5OjE="}}]},
        },
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None},
    }  # fmt: skip


def _upsert_run(server: WandbServer, variables: Json, query: str) -> Json:
    # With an id it is the public interface, which changes a run from outside.
    by_id = next((run for run in server.runs.values() if f"run-{run.number}" == variables.get("id")), None)
    name = by_id.name if by_id else variables["name"]
    project = by_id.project if by_id else variables.get("project") or "uncategorized"
    is_new = name not in server.runs
    server.projects.add(project)
    run = server.runs.setdefault(name, Run(name, project, len(server.runs) + 1))
    if variables.get("config"):
        run.config = json.loads(variables["config"])
    if variables.get("summaryMetrics"):
        run.summary = json.loads(variables["summaryMetrics"])
    for key in ("groupName", "jobType", "tags", "notes", "displayName", "program", "sweep"):
        if variables.get(key) is not None:
            run.fields[key] = variables[key]
    if by_id is None:
        run.exit_code = None
    return {"upsertBucket": {"bucket": _bucket(run), "inserted": is_new}}


def _bucket(run: Run) -> Json:
    return {
        "id": f"run-{run.number}", "name": run.name, "displayName": run.fields.get("displayName", run.name),
        "description": "", "config": json.dumps(run.config), "sweepName": None, "historyLineCount": len(run.history),
        "project": {"id": "P1", "name": run.project, "entity": {"id": "E1", "name": ENTITY}},
    }  # fmt: skip


def _resume_status(server: WandbServer, variables: Json, query: str) -> Json:
    run = server.runs.get(variables["name"])
    project = {"id": "P1", "name": variables["project"], "entity": {"id": "E1", "name": ENTITY}}
    if run is None:
        return {"model": {**project, "bucket": None}}
    config = {**run.config, "t": {"value": 1}, "_wandb": {"value": {}, **run.config.get("_wandb", {})}}
    bucket = {
        **_bucket(run),
        "summaryMetrics": json.dumps(run.summary), "config": json.dumps(config),
        "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": json.dumps([json.dumps(row) for row in run.events[-1:]]),
        "historyLineCount": len(run.history), "eventsLineCount": len(run.events), "logLineCount": 0,
        "tags": run.fields.get("tags") or [], "wandbConfig": json.dumps(config),
    }  # fmt: skip
    return {"model": {**project, "bucket": bucket}}


def _run_files(server: WandbServer, variables: Json, query: str) -> Json:
    name = variables["run"]
    files = [
        {"name": file, "uploadUrl": f"{server.url}/storage/run/{name}/{file}", "uploadHeaders": []}
        for file in variables["files"]
    ]
    return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}


def _files_of_run(server: WandbServer, variables: Json, query: str) -> Json:
    run = server.runs[variables["name"]]
    wanted = (variables.get("pattern") or "%").removesuffix("%")
    nodes = [
        {
            "id": name, "name": name, "displayName": name, "sizeBytes": str(len(content)), "mimetype": "", "md5": "",
            "url": f"{server.url}/storage/run/{run.name}/{name}", "directUrl": "", "updatedAt": "2026-01-01T00:00:00",
        }
        for name, content in run.files.items()
        if name.startswith(wanted)
    ]  # fmt: skip
    page = {"edges": [{"cursor": "", "node": node} for node in nodes], "pageInfo": _last_page()}
    return {"project": {"internalId": "1", "run": {"fileCount": len(run.files), "files": page}}}


def _last_page() -> Json:
    return {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}


def _run_of_api(server: WandbServer, variables: Json, query: str) -> Json:
    run = server.runs.get(variables["name"])
    if run is None:
        return {"project": {"run": None}}
    answer = {
        **_bucket(run),
        "projectId": "1", "tags": run.fields.get("tags") or [], "state": run.state,
        "group": run.fields.get("groupName"), "jobType": run.fields.get("jobType"),
        "commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00", "notes": run.fields.get("notes"), "systemMetrics": "{}",
        "summaryMetrics": json.dumps(run.summary), "user": {"name": ENTITY, "username": ENTITY},
        "historyKeys": _history_keys(run),
    }  # fmt: skip
    return {"project": {"run": answer}}


def _history_keys(run: Run) -> Json:
    names = {name for row in run.history for name in row}
    return {
        "lastStep": max((row["_step"] for row in run.history), default=-1),
        "sets": [],
        "keys": {name: {} for name in names},
    }


def _artifacts_of_run(server: WandbServer, variables: Json, query: str) -> Json:
    run = server.runs[variables["run"]]
    how, field = ("used", "inputArtifacts") if "inputArtifacts" in query else ("logged", "outputArtifacts")
    nodes = [_describe_artifact(server.artifacts[artifact]) for link, artifact in run.artifacts if link == how]
    page = {
        "totalCount": len(nodes), "pageInfo": _last_page(),
        "edges": [{"node": node} for node in nodes],
    }  # fmt: skip
    return {"project": {"run": {"artifacts": page, field: page}}}


def _describe_artifact(artifact: Artifact) -> Json:
    project = {"id": "1", "internalId": "1", "name": "lab3", "entity": {"name": ENTITY}}
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    return {
        "__typename": "Artifact", "id": artifact.id, "artifactSequence": collection, "versionIndex": 0,
        "artifactType": {"name": artifact.type}, "description": None, "metadata": json.dumps(artifact.metadata),
        "ttlDurationSeconds": 0, "ttlIsInherited": False, "tags": [], "historyStep": None, "state": artifact.state,
        "size": 1, "digest": artifact.digest, "commitHash": artifact.digest[:12], "fileCount": len(artifact.files),
        "createdAt": "2026-01-01T00:00:00", "updatedAt": None,
        "aliases": [
            {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": collection}
            for alias in artifact.aliases
        ],
    }  # fmt: skip


def _artifact_by_name(server: WandbServer, variables: Json, query: str) -> Json:
    name = variables["name"].partition(":")[0]
    found = next((artifact for artifact in server.artifacts.values() if artifact.name == name), None)
    if found is None:
        return {"project": {"artifactCollectionMembership": None}}
    described = _describe_artifact(found)
    membership = {
        "__typename": "ArtifactCollectionMembership", "id": f"membership-{found.id}", "versionIndex": 0,
        "createdAt": "2026-01-01T00:00:00", "aliases": described["aliases"],
        "artifactCollection": described["artifactSequence"], "artifact": described,
    }  # fmt: skip
    return {"project": {"artifactCollectionMembership": membership}}


def _artifact_manifest(server: WandbServer, variables: Json, query: str) -> Json:
    url = f"{server.url}/storage/manifest/{variables['id']}"
    return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}


def _artifact_file_urls(server: WandbServer, variables: Json, query: str) -> Json:
    (artifact,) = [each for each in server.artifacts.values() if each.name == variables["collection"]]
    nodes = [
        {"__typename": "File", "name": name, "directUrl": f"{server.url}/storage/artifact/{artifact.id}/{name}"}
        for name in artifact.files
    ]
    files = {"pageInfo": _last_page(), "edges": [{"node": node} for node in nodes]}
    collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
    return {"project": {"artifactCollection": collection}}


def _history_page(server: WandbServer, variables: Json, query: str) -> Json:
    rows = [
        json.dumps(row)
        for row in server.runs[variables["run"]].history
        if variables["minStep"] <= row["_step"] < variables["maxStep"]
    ]
    return {"project": {"run": {"history": rows[: variables["pageSize"]]}}}


def _alert(server: WandbServer, variables: Json, query: str) -> Json:
    server.runs[variables["runName"]].alerts.append(variables)
    return {"notifyScriptableRunAlert": {"success": True}}


def _artifact_type(server: WandbServer, variables: Json, query: str) -> Json:
    name = variables["name"].partition(":")[0]
    found = next((artifact for artifact in server.artifacts.values() if artifact.name == name), None)
    return {"project": {"artifact": {"artifactType": {"name": found.type}} if found else None}}


def _create_artifact(server: WandbServer, variables: Json, query: str) -> Json:
    wanted = variables["input"]
    name, digest = wanted["artifactCollectionName"], wanted["digest"]
    versions = [artifact for artifact in server.artifacts.values() if artifact.name == name]
    artifact = next((each for each in versions if each.digest == digest), None)
    aliases = [each["alias"] for each in wanted["aliases"] or []]
    if artifact is None:
        artifact = Artifact(
            f"artifact-{len(server.artifacts) + 1}", wanted["artifactTypeName"], name, digest, [],
            json.loads(wanted["metadata"] or "{}"),
        )  # fmt: skip
        server.artifacts[artifact.id] = artifact
    for version in versions:
        version.aliases = [alias for alias in version.aliases if alias not in aliases]
    artifact.aliases = sorted({*artifact.aliases, *aliases})
    if wanted.get("runName"):
        _link(server, wanted["runName"], "logged", artifact)
    latest = {"latestArtifact": {"id": versions[-1].id}} if versions else {"latestArtifact": None}
    return {"createArtifact": {"artifact": {"id": artifact.id, "state": artifact.state, "artifactSequence": latest}}}


def _link(server: WandbServer, run: str, how: str, artifact: Artifact) -> None:
    if (how, artifact.id) not in server.runs[run].artifacts:
        server.runs[run].artifacts.append((how, artifact.id))


def _create_manifest(server: WandbServer, variables: Json, query: str) -> Json:
    artifact_id = variables["artifactID"]
    file = {
        "id": f"file-{artifact_id}", "name": "wandb_manifest.json", "displayName": "wandb_manifest.json",
        "uploadUrl": f"{server.url}/storage/manifest/{artifact_id}", "uploadHeaders": [],
    }  # fmt: skip
    return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{artifact_id}", "file": file}}}


def _create_artifact_files(server: WandbServer, variables: Json, query: str) -> Json:
    nodes = []
    for number, file in enumerate(variables["input"]["artifactFiles"]):
        url = f"{server.url}/storage/artifact/{file['artifactID']}/{file['name']}"
        nodes.append(
            {
                "id": f"f{number}",
                "name": file["name"],
                "displayName": file["name"],
                "uploadUrl": url,
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "storagePath": url.split("/storage/")[1],
                "artifact": {"id": file["artifactID"]},
            }
        )
    return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}


def _use_artifact(server: WandbServer, variables: Json, query: str) -> Json:
    wanted = variables.get("input", variables)
    artifact = server.artifacts[wanted["artifactID"]]
    run = server.runs[wanted["runName"]]
    run.artifacts = [(how, each) for how, each in run.artifacts if each != artifact.id]
    _link(server, run.name, "used", artifact)
    return {"useArtifact": {"artifact": _describe_artifact(artifact)}}


def _artifact_by_id(server: WandbServer, variables: Json, query: str) -> Json:
    found = server.artifacts.get(variables["id"])
    return {"artifact": _describe_artifact(found) if found else None}


def _commit_artifact(server: WandbServer, variables: Json, query: str) -> Json:
    artifact = server.artifacts[variables["artifactID"]]
    artifact.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


def _projects(server: WandbServer, variables: Json, query: str) -> Json:
    nodes = [
        {
            "__typename": "Project", "id": f"project-{name}", "name": name, "entityName": variables["entity"],
            "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None,
        }
        for name in sorted(server.projects)
    ]  # fmt: skip
    page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}


def _create_project(server: WandbServer, variables: Json, query: str) -> Json:
    server.projects.add(variables["input"]["name"])
    return {"result": {"project": None, "model": None, "inserted": True}}


def _upsert_view(server: WandbServer, variables: Json, query: str) -> Json:
    """Without an id it is a new view, whatever its name; the project must be there."""
    if variables["projectName"] not in server.projects:
        raise LookupError(f"no project {variables['projectName']}")
    is_new = not variables.get("id")
    view_id = base64.b64encode(f"View:{len(server.views) + 1}".encode()).decode() if is_new else variables["id"]
    project = {"id": "P1", "name": variables["projectName"], "entityName": variables["entityName"]}
    view = {} if is_new else server.views[view_id]
    view |= {name: variables[name] for name in ("name", "displayName", "description", "type", "spec")}
    view |= {"id": view_id, "project": project, "user": None}
    view |= dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00")
    server.views[view_id] = view
    return {"upsertView": {"view": view, "inserted": is_new}}


def _views_of_project(server: WandbServer, variables: Json, query: str) -> Json:
    project = variables.get("project") or variables["projectName"]
    if project not in server.projects:
        return {"project": None}
    wanted_type, wanted_name = variables.get("viewType") or "runs", variables.get("viewName")
    edges = [
        {"node": view, "cursor": view["id"]}
        for view in server.views.values()
        if view["project"]["name"] == project and view["type"] == wanted_type and wanted_name in (None, view["name"])
    ]
    return {"project": {"allViews": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}}


_OPERATIONS: dict[str, Callable[[WandbServer, Json, str], Json]] = {
    "Viewer": _viewer,
    "GetDefaultEntity": _viewer,
    "Run": _run_of_api,
    "RunHistoryKeys": _run_of_api,
    "RunParquetHistory": lambda *_: {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}},
    "HistoryPage": _history_page,
    "RunOutputArtifacts": _artifacts_of_run,
    "RunInputArtifacts": _artifacts_of_run,
    "ServerFeaturesQuery": lambda *_: {"serverInfo": {"features": []}},
    "UpsertBucket": _upsert_run,
    "RunResumeStatus": _resume_status,
    "CreateRunFiles": _run_files,
    "RunFiles": _files_of_run,
    "NotifyScriptableRunAlert": _alert,
    "OrganizationCoreWeaveOrganizationID": lambda *_: {"entity": {"organization": {"coreWeaveOrganizationId": None}}},
    "ArtifactType": _artifact_type,
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": _create_manifest,
    "CreateArtifactFiles": _create_artifact_files,
    "CommitArtifact": _commit_artifact,
    "ArtifactByID": _artifact_by_id,
    "ArtifactMembershipByName": _artifact_by_name,
    "FetchArtifactManifest": _artifact_manifest,
    "GetArtifactMembershipFileUrls": _artifact_file_urls,
    "UseArtifact": _use_artifact,
    "GetProjects": _projects,
    "CreateProject": _create_project,
    "UpsertView2": _upsert_view,
    "upsertView": _upsert_view,
    "ProjectViews": _views_of_project,
    "View": _views_of_project,
    "SpecificReport": lambda server, variables, query: {"view": server.views.get(variables["reportId"])},
}
