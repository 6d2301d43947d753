"""The files in experiments/jobs/: valid to their fields' own validators and to our rules, which reject mutations."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import manifests

JOBS = Path(__file__).parents[1] / "experiments" / "jobs"
FILES = sorted(path for path in JOBS.rglob("*") if path.is_file())
KUBERNETES = sorted((JOBS / "kubernetes").glob("*.yaml"))


def load(text: str) -> Any:
    return yaml.safe_load(text)


CHECKS: dict[str, Callable[[str], None]] = {
    "kubernetes/job.yaml": lambda text: manifests.check_kubernetes(load(text)),
    "kubernetes/cronjob.yaml": lambda text: manifests.check_kubernetes(load(text)),
    "kubernetes/runs.yaml": lambda text: manifests.check_kubernetes(load(text)),
    "kubernetes/kustomization.yaml": lambda text: manifests.check_kubernetes(load(text)),
    "skypilot.yaml": lambda text: manifests.check_skypilot(load(text), is_spot=False),
    "skypilot-spot.yaml": lambda text: manifests.check_skypilot(load(text), is_spot=True),
    "slurm.sh": manifests.check_slurm,
    "dstack.yaml": lambda text: manifests.check_dstack(load(text)),
    "crontab": manifests.check_crontab,
    "systemd/lab3.service": manifests.check_systemd,
    "systemd/lab3.timer": manifests.check_timer,
    "compose.yaml": lambda text: manifests.check_compose(load(text)),
    "Dockerfile": manifests.check_dockerfile,
    "github-actions.yaml": lambda text: manifests.check_workflow(load(text)),
    "wandb-launch.yaml": lambda text: manifests.check_launch(load(text)),
    "constraints.txt": manifests.check_constraints,
}


def name_of(path: Path) -> str:
    return path.relative_to(JOBS).as_posix()


def test_every_file_has_its_rules_and_opens_with_its_command() -> None:
    assert sorted(CHECKS) == [name_of(path) for path in FILES]
    for path in FILES:
        command = manifests.first_command(path)
        assert command[0] in (
            "docker", "kubectl", "sky", "sbatch", "dstack", "crontab", "systemctl", "cp", "wandb", "pip"
        ), path  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_the_file_keeps_its_rules(name: str) -> None:
    CHECKS[name]((JOBS / name).read_text())


# What each change would do: (file, what is there, what takes its place). None may pass.
MUTATIONS = [
    ("kubernetes/cronjob.yaml", "0 2 * * *", "0 25 * * *"), ("kubernetes/cronjob.yaml", "Forbid", "Allow"),
    ("kubernetes/cronjob.yaml", "values: [75]", "values: [137]"), ("kubernetes/cronjob.yaml", "FailJob", "Fail"),
    ("kubernetes/cronjob.yaml", "[2, 65, 78]", "[2, 65, 75, 78]"), ("kubernetes/cronjob.yaml", "Never", "OnFailure"),
    ("kubernetes/cronjob.yaml", "run, digits, --job", "run, digits"),
    ("kubernetes/cronjob.yaml", "DisruptionTarget", "Disruption"),
    ("kubernetes/cronjob.yaml", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 1"),
    ("kubernetes/cronjob.yaml", "podReplacementPolicy: Failed", "podReplacementPolicy: TerminatingOrFailed"),
    ("kubernetes/cronjob.yaml", "activeDeadlineSeconds: 28800", "activeDeadlineSeconds: 0"),
    ("kubernetes/cronjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false"),
    ("kubernetes/job.yaml", "--max-attempts, \"20\", ", ""), ("kubernetes/job.yaml", "operator: In", "operator: NotIn"),
    ("kubernetes/job.yaml", "backoffLimit: 6", "backoffLimit: 600"), ("kubernetes/job.yaml", "queue-name", "queue"),
    ("kubernetes/job.yaml", "Never", "Always"), ("kubernetes/job.yaml", "values: [74]", "values: []"),
    ("kubernetes/job.yaml", "limits: {memory: 16Gi, nvidia", "limits: {nvidia"),
    ("kubernetes/job.yaml", "kind: Job", "kind: Pod"),
    ("skypilot.yaml", "exec ~", "~"), ("skypilot.yaml", "resources:", "resource:"), ("skypilot.yaml", " --job", ""),
    ("skypilot-spot.yaml", "[75]", "[137]"), ("skypilot-spot.yaml", "[75]", "[75, 137]"),
    ("skypilot-spot.yaml", "EAGER_NEXT_REGION", "EAGER"), ("skypilot-spot.yaml", "use_spot: true", "use_spot: false"),
    ("skypilot-spot.yaml", "MOUNT_CACHED", "MOUNT"), ("skypilot-spot.yaml", "--max-attempts 50 ", ""),
    ("skypilot-spot.yaml", "--out /lab3-runs", "--out runs"), ("skypilot-spot.yaml", "exec ~", "~"),
    ("slurm.sh", "#SBATCH --requeue\n", ""), ("slurm.sh", "TERM@120", "TERM@5"), ("slurm.sh", "TERM@120", "KILL@120"),
    ("slurm.sh", "-eq 75", "-eq 137"), ("slurm.sh", " --job", ""), ("slurm.sh", 'exit "$code"', "exit 0"),
    ("slurm.sh", "open-mode=append", "open-mode=truncate"), ("slurm.sh", "--max-attempts 20 ", ""),
    ("slurm.sh", "srun --kill", "echo --kill"), ("slurm.sh", '-eq 75 ] || [ "$code" -eq 74', "-ne 0"),
    ("dstack.yaml", "type: task", "type: service"), ("dstack.yaml", "exec lab3", "lab3"),
    ("dstack.yaml", "interruption", "error"), ("dstack.yaml", " --job", ""), ("dstack.yaml", "--max-attempts 20 ", ""),
    ("dstack.yaml", "path: /lab3-runs", "path: /runs"), ("dstack.yaml", "max_duration: 8h", "max_duration: null"),
    ("crontab", "0 2 * * *", "0 2 * *"), ("crontab", "0 2 * * *", "61 2 * * *"), ("crontab", r"\%F", "%F"),
    ("crontab", "code 75", "code 1"), ("crontab", "--nonblock ", ""), ("crontab", " --job", ""),
    ("crontab", "0 2 * * *", "0 2 31 2 *"),
    ("systemd/lab3.service", "2 65 78", "2 65 75 78"), ("systemd/lab3.service", "Restart=on-failure", "Restart=always"),
    ("systemd/lab3.service", "TimeoutStopSec=30", "TimeoutStopSec=3"), ("systemd/lab3.service", "exec /", "/"),
    ("systemd/lab3.service", "%%F", "%F"), ("systemd/lab3.service", " --job", ""),
    ("systemd/lab3.service", "StartLimitBurst=10", ""),
    ("compose.yaml", "on-failure:20", "always"), ("compose.yaml", "--job, ", ""),
    ("compose.yaml", "127.0.0.1:8000:8000", "8000:8000"), ("compose.yaml", "runs:ro", "runs"),
    ("compose.yaml", ":?a token that keeps others out", ":-"),
    ("Dockerfile", "USER 10001", "USER root"), ("Dockerfile", 'ENTRYPOINT ["lab3"]', "ENTRYPOINT lab3"),
    ("Dockerfile", "python:3.12.11-slim", "python:slim"), ("Dockerfile", "AS gpu", "AS cuda"),
    ("Dockerfile", "--constraint constraints.txt '.[gpu]'", "'.[gpu]'"), ("Dockerfile", "COPY lab3", "ADD lab3"),
    ("Dockerfile", "USER 10001", ""),
    ("github-actions.yaml", "0 2 * * *", "0 2 * * * *"), ("github-actions.yaml", "contents: read", "contents: write"),
    ("github-actions.yaml", "timeout-minutes: 60", "timeout-minutes: 0"), ("github-actions.yaml", " --job", ""),
    ("github-actions.yaml", "checkout@v4", "checkout"),
    ("github-actions.yaml", "in-progress: false", "in-progress: true"),
    ("wandb-launch.yaml", 'value: "1"', 'value: "0"'), ("wandb-launch.yaml", "[lab3]", "[sh]"),
    ("wandb-launch.yaml", "LAB3_JOB", "LAB3"),
    ("kubernetes/job.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("kubernetes/job.yaml", "{name: LAB3_SLOT, value: first}", "{name: SLOT, value: first}"),
    ("kubernetes/job.yaml", "valueFrom: {secretKeyRef: {name: wandb, key: api-key, optional: true}}", "value: 0123"),
    ("skypilot.yaml", 'WANDB_API_KEY: ""', "WANDB_API_KEY: 0123"), ("skypilot.yaml", "  set -e\n", ""),
    ("skypilot.yaml", "--constraint experiments/jobs/constraints.txt ", ""), ("skypilot.yaml", "L4: 1", "L4: 0"),
    ("skypilot.yaml", "disk_size: 100", "disk_size: 10"), ("skypilot.yaml", " --device gpu", ""),
    ("skypilot.yaml", "'.[gpu]'", "."), ("skypilot.yaml", "run: |", "runs: |"),
    ("skypilot-spot.yaml", "job_recovery", "spot_recovery"),
    ("skypilot-spot.yaml", "max_restarts_on_errors: 3", "max_restarts_on_errors: 0"),
    ("dstack.yaml", "env: [WANDB_API_KEY]", "env: [WANDB_API_KEY=0123]"), ("dstack.yaml", '"3.12"', '"3.9"'),
    ("dstack.yaml", "spot_policy: auto", "spot_policy: never"),
    ("dstack.yaml", "--constraint experiments/jobs/constraints.txt ", ""), ("dstack.yaml", "100GB..", "5GB.."),
    ("crontab", "cd /srv/lab3 && ", ""), ("crontab", ">> nightly.jsonl ", "> nightly.jsonl "),
    ("crontab", '--slot "$(date +', '--slot "$(date -u +'), ("crontab", "PATH=/opt", "PATHS=/opt"),
    ("systemd/lab3.service", "Type=oneshot", "Type=simple"), ("systemd/lab3.service", "DynamicUser=yes", "User=root"),
    ("systemd/lab3.service", "NoNewPrivileges=yes", "NoNewPrivileges=no"),
    ("systemd/lab3.timer", "02:00:00", "25:00:00"), ("systemd/lab3.timer", "*-*-* 02", "* 02"),
    ("systemd/lab3.timer", "OnCalendar", "OnCalender"), ("systemd/lab3.timer", "Persistent=true", "Persistent=false"),
    ("systemd/lab3.timer", "=600", "=86400"), ("systemd/lab3.timer", "RandomizedDelaySec=600\n", ""),
    ("systemd/lab3.timer", "timers.target", "multi-user.target"), ("systemd/lab3.timer", "[Install]", "[Installed]"),
    ("systemd/lab3.timer", "[Timer]", "[Service]"), ("systemd/lab3.timer", "WantedBy=timers.target\n", ""),
    ("compose.yaml", "SIGTERM", "SIGKILL"), ("compose.yaml", "stop_grace_period: 30s", "stop_grace_period: 1s"),
    ("compose.yaml", '"runs:/lab3/runs"', '"other:/tmp"'), ("compose.yaml", "target: cpu", "target: gpu"),
    ("compose.yaml", "${WANDB_API_KEY:-}", "0123"), ("compose.yaml", "/healthz", "/"),
    ("Dockerfile", "PIP_NO_CACHE_DIR=1", "PIP_NO_CACHE_DIR=0"), ("Dockerfile", " && chown -R lab3 /lab3", ""),
    ("Dockerfile", "FROM base AS cpu", "FROM base AS cpu-only"),
    ("github-actions.yaml", "persist-credentials: false", "persist-credentials: true"),
    ("github-actions.yaml", "always()", "success()"), ("github-actions.yaml", " --against", ""),
    ("github-actions.yaml", "--constraint experiments/jobs/constraints.txt ", ""),
    ("wandb-launch.yaml", "--device, gpu", "--device, cpu"),
    ("wandb-launch.yaml", "backoffLimit: 3", "backoffLimit: 0"),
    ("wandb-launch.yaml", "backoffLimit: 3", "backoffLimit: 300"), ("wandb-launch.yaml", "args: [run", "args: [train"),
    ("wandb-launch.yaml", "entry_point", "entrypoint"), ("wandb-launch.yaml", "resource_args", "resources"),
    ("wandb-launch.yaml", '"1"}', '"1"}\n      - {name: WANDB_API_KEY, value: "0123"}'),
    ("kubernetes/runs.yaml", "ReadWriteOnce]", "ReadOnlyMany]"), ("kubernetes/runs.yaml", "20Gi", "20Mi"),
    ("kubernetes/runs.yaml", "20Gi", "1Gi"), ("kubernetes/runs.yaml", "name: lab3-runs", "name: runs"),
    ("kubernetes/runs.yaml", "PersistentVolumeClaim", "PersistentVolume"),
    ("kubernetes/runs.yaml", "requests", "limits"),
    ("kubernetes/runs.yaml", "accessModes", "accessMode"), ("kubernetes/runs.yaml", "storage:", "memory:"),
    ("kubernetes/runs.yaml", "apiVersion: v1", "apiVersion: v2"),
    ("kubernetes/runs.yaml", "app.kubernetes.io/name: lab3", "app: lab3"),
    ("kubernetes/kustomization.yaml", "[runs.yaml, cronjob.yaml]", "[cronjob.yaml]"),
    ("kubernetes/kustomization.yaml", "[runs.yaml, cronjob.yaml]", "[runs.yaml, cronjob.yaml, job.yaml]"),
    ("kubernetes/kustomization.yaml", "cronjob.yaml", "cron.yaml"), ("kubernetes/kustomization.yaml", "cpu", "latest"),
    ("kubernetes/kustomization.yaml", "newTag: cpu", 'newTag: ""'),
    ("kubernetes/kustomization.yaml", "images", "image"),
    ("kubernetes/kustomization.yaml", "resources:", "bases:"),
    ("kubernetes/kustomization.yaml", "name: lab3,", "name: lab,"),
    ("kubernetes/kustomization.yaml", "kind: Kustomization", "kind: Kustomisation"),
    ("kubernetes/kustomization.yaml", "kustomize.config.k8s.io", "config.k8s.io"),
    ("constraints.txt", "tensorflow==", "tensorflow>="), ("constraints.txt", "keras==", "keras-core=="),
    ("constraints.txt", "numpy==", "numpy @ https://example.org/"), ("constraints.txt", "click==", "click"),
    ("constraints.txt", "click==", "CLICK=="), ("constraints.txt", "absl-py==", "zabsl-py=="),
    ("constraints.txt", "h5py==", "h5py===="), ("constraints.txt", "wandb==", "-e wandb=="),
    ("constraints.txt", "click==8", "click==8\nclick==8"), ("constraints.txt", "pillow==", "pillow==latest"),
]  # fmt: skip


def test_every_file_is_mutated_ten_times() -> None:
    counts = Counter(name for name, _, _ in MUTATIONS)
    assert set(counts) == set(CHECKS) and min(counts.values()) >= 10, counts


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation[0]}: {mutation[1]} -> {mutation[2]}")
def test_a_mutated_file_is_rejected(mutation: tuple[str, str, str]) -> None:
    name, before, after = mutation
    text = (JOBS / name).read_text()
    assert before in text
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        CHECKS[name](text.replace(before, after))


@pytest.mark.parametrize("path", [path for path in KUBERNETES if path.name != "kustomization.yaml"], ids=name_of)
def test_kubernetes_takes_it(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[manifests]' has the validators")
    document = load(path.read_text())
    validator.validate(document, "1.33", strict=True)
    # Strict: a key that there is not is an error.
    document["spec"]["scedule"] = 1
    with pytest.raises(validator.ValidationError):
        validator.validate(document, "1.33", strict=True)


SCHEMAS = [("compose.yaml", "vendor.compose-spec"), ("github-actions.yaml", "vendor.github-workflows")]


@pytest.mark.parametrize(("name", "schema"), SCHEMAS)
def test_the_fields_own_schema_takes_it(name: str, schema: str, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="pip install -e '.[manifests]' has the validators")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, JOBS / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / name
    broken.write_text((JOBS / name).read_text().replace("services:", "servces:").replace("runs-on:", "run-on:"))
    assert subprocess.run([*command, broken], capture_output=True).returncode == 1


# These two need other versions of what lab3 needs, so they have an environment of their own.
OWN_PARSERS = {
    "skypilot.yaml": "import sky; sky.Task.from_yaml(path)",
    "skypilot-spot.yaml": "import sky; sky.Task.from_yaml(path)",
    "dstack.yaml": (
        "import yaml; from dstack._internal.core.models.configurations import parse_run_configuration as parse; "
        "parse(yaml.safe_load(open(path)))"
    ),
}


@pytest.mark.parametrize("name", OWN_PARSERS)
def test_its_own_program_takes_it(name: str, tmp_path: Path) -> None:
    python = os.environ.get("LAB3_JOBS_PYTHON")
    if not python:
        pytest.skip("LAB3_JOBS_PYTHON must be the Python of an environment with skypilot and dstack")

    def parse(path: Path) -> int:
        code = f"path = {str(path)!r}; {OWN_PARSERS[name]}"
        return subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True).returncode

    assert parse(JOBS / name) == 0
    broken = tmp_path / name
    broken.write_text((JOBS / name).read_text().replace("resources:", "resource:"))
    assert parse(broken) == 1


def test_bash_and_systemd_take_their_files(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", JOBS / "slurm.sh"], capture_output=True).returncode == 0
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for name in ("lab3.service", "lab3.timer"):
        # Its program must exist for systemd to be content.
        text = (JOBS / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/srv/lab3", "/tmp"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in ("lab3.service", "lab3.timer"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not re.search("lab3.*(Unknown|invalid|Failed)", done.stderr), done.stderr
