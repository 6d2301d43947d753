"""Rules for the files in experiments/jobs/ that their fields' own validators do not know."""

import re
import shlex
from pathlib import Path
from typing import Any

NEVER_AGAIN = {2, 65, 78}


def check_pod(spec: dict[str, Any]) -> None:
    """A pod that a job may start again, and that is no danger to its node."""
    assert spec["restartPolicy"] == "Never", "a failed container must fail its pod, or podFailurePolicy does nothing"
    assert 10 <= spec["terminationGracePeriodSeconds"] <= 120, "SIGTERM needs ten seconds"
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert "--job" in container["args"], "the same command must go on with the same run"
    assert "--max-attempts" in container["args"], "what exits with 75 is counted by nobody else"
    assert container["resources"]["limits"]["memory"], "a limit of memory keeps the node alive"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]} and "runs" in mounted


def check_job(spec: dict[str, Any]) -> None:
    """The spec of a Job, or of a CronJob's template: which exit codes are ignored, which end it, what bounds it."""
    check_pod(spec["template"]["spec"])
    assert 0 < spec["activeDeadlineSeconds"] <= 86400 and spec["backoffLimit"] <= 10
    assert spec["podReplacementPolicy"] == "Failed", "a second pod must not start while the first is ending"
    actions: dict[int, str] = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("Ignore", "FailJob", "Count", "FailIndex"), rule["action"]
        for code in rule.get("onExitCodes", {}).get("values", []):
            assert rule["onExitCodes"]["operator"] == "In"
            actions[code] = rule["action"]
    assert {code for code, action in actions.items() if action == "FailJob"} == NEVER_AGAIN
    assert actions[75] == "Ignore" and actions[74] == "Count"
    conditions = [
        each["type"] for rule in spec["podFailurePolicy"]["rules"] for each in rule.get("onPodConditions", [])
    ]
    assert conditions == ["DisruptionTarget"]


def check_kubernetes(document: dict[str, Any]) -> None:
    """A Job, a CronJob, a claim or a kustomization."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Job":
        assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        check_job(spec)
    elif kind == "CronJob":
        check_cron(spec["schedule"])
        assert spec["concurrencyPolicy"] == "Forbid" and spec["startingDeadlineSeconds"] >= 60
        assert spec["jobTemplate"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        check_job(spec["jobTemplate"]["spec"])
    else:
        assert kind in ("PersistentVolumeClaim", "Kustomization"), kind


def check_cron(expression: str) -> None:
    """Five fields that come true some day."""
    from croniter import croniter

    assert len(expression.split()) == 5 and croniter.is_valid(expression), expression
    croniter(expression).get_next()


def check_crontab(text: str) -> None:
    """A crontab: variables, and lines of five fields and a command without a bare percent sign."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    jobs = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    assert jobs
    for line in jobs:
        *fields, command = line.split(maxsplit=5)
        check_cron(" ".join(fields))
        assert not re.search(r"(?<!\\)%", command), "cron ends a command at a percent sign"
        assert "--conflict-exit-code 75" in command and "--nonblock" in command and "--job" in command


def check_skypilot(task: dict[str, Any], *, is_spot: bool) -> None:
    """A SkyPilot task; a managed spot job recovers from 75 and never from 137."""
    assert set(task) <= {"name", "resources", "envs", "workdir", "file_mounts", "setup", "run"}, set(task)
    assert re.search(r"^exec .*lab3 run .* --job", task["run"], re.MULTILINE), "signals must reach lab3 itself"
    if is_spot:
        resources = task["resources"]
        assert resources["use_spot"] is True
        recovery = resources["job_recovery"]
        assert recovery["strategy"] in ("EAGER_NEXT_REGION", "FAILOVER")
        assert recovery["recover_on_exit_codes"] == [75] and recovery["max_restarts_on_errors"] > 0
        assert "--max-attempts" in task["run"]
        (bucket,) = task["file_mounts"].values()
        assert bucket["mode"] == "MOUNT_CACHED", "runs are appended to and locked"
        assert next(iter(task["file_mounts"])) in task["run"]


def check_slurm(text: str) -> None:
    """A batch script that is signalled early and puts itself back on 75 and 74 alone."""
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    assert "requeue" in options and options["open-mode"] == "append"
    name, _, seconds = options["signal"].partition("@")
    assert name == "TERM" and int(seconds) >= 30
    assert re.search(r"^srun .*lab3 run .*--job.*--max-attempts", text, re.MULTILINE)
    (condition,) = re.findall(r"^if (.*); then\n  scontrol requeue", text, re.MULTILINE)
    assert set(re.findall(r"-eq (\d+)", condition)) == {"75", "74"}
    assert text.rstrip().endswith('exit "$code"')


def check_compose(document: dict[str, Any]) -> None:
    """A sweep that ends, and a dashboard that nobody else reaches."""
    sweep, dashboard = (document["services"][name] for name in ("sweep", "dashboard"))
    assert "--job" in sweep["command"] and re.fullmatch(r"on-failure:\d+", sweep["restart"])
    assert all(port.startswith("127.0.0.1:") for port in dashboard["ports"])
    assert all(volume.endswith(":ro") for volume in dashboard["volumes"])
    assert ":?" in dashboard["environment"]["LAB3_DASHBOARD_TOKEN"], "there must be a token"


def check_dockerfile(text: str) -> None:
    """Pinned bases, three targets, no root, signals that reach lab3."""
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    names = {name for _, name in stages}
    for base, _ in stages:
        assert base in names or re.search(r":\d+\.\d+\.\d+-", base), f"{base} is not pinned"
    assert {"cpu", "gpu", "dashboard"} <= names
    assert re.search(r"^USER (?!0|root)\S+$", text, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["lab3"\]$', text, re.MULTILINE), "a shell would keep signals"
    for line in re.findall(r"^(?:RUN.*|.*)pip install.*$", text, re.MULTILINE):
        assert "--constraint constraints.txt" in line, line
    assert "ADD " not in text and "curl" not in text


def check_systemd(text: str) -> None:
    """A service that is not started again where that is no use."""
    assert "Restart=on-failure" in text
    codes = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert codes and set(map(int, codes[1].split())) == NEVER_AGAIN
    assert re.search(r"^StartLimitBurst=\d+$", text, re.MULTILINE)
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert seconds and int(seconds[1]) >= 10
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert "exec /" in command and "--job" in command and "%%F" in command


def check_dstack(task: dict[str, Any]) -> None:
    """A dstack task that survives the loss of its machine."""
    assert task["type"] == "task" and "interruption" in task["retry"]["on_events"] and task["max_duration"]
    last = task["commands"][-1]
    assert last.startswith("exec lab3 ") and "--job" in last and "--max-attempts" in last
    assert task["volumes"][0]["path"] in last


def check_workflow(workflow: dict[Any, Any]) -> None:
    """A GitHub workflow on a schedule that runs one at a time, with a limit and few rights."""
    # To YAML 1.1 the key `on` is true.
    events = workflow[True]
    for each in events["schedule"]:
        check_cron(each["cron"])
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 360
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert any("lab3 run" in command and "--job" in command for command in commands)
        assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)


def check_launch(config: dict[str, Any]) -> None:
    """A W&B Launch configuration whose container is a job."""
    assert config["overrides"]["entry_point"] == ["lab3"] and config["overrides"]["args"][0] == "run"
    (env,) = [each for each in config["resource_args"]["kubernetes"]["env"] if each["name"] == "LAB3_JOB"]
    assert env["value"] == "1"


def first_command(path: Path) -> list[str]:
    """The command that the file's first comment names, as words."""
    lines = path.read_text().splitlines()
    line = next(line for line in lines if line.startswith("# "))
    return shlex.split(line.removeprefix("# "))
