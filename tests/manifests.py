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
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False, "lab3 asks nothing of the cluster"
    slots = [each for each in container["env"] if each["name"] == "LAB3_SLOT"]
    assert len(slots) == 1, "a job that is made again is the same run by its slot"
    keys = [each for each in container["env"] if each["name"] == "WANDB_API_KEY"]
    assert all("secretKeyRef" in each["valueFrom"] for each in keys), "a key in a manifest is a key in a repository"
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
    elif kind == "PersistentVolumeClaim":
        check_claim(document)
    else:
        check_kustomization(document)


def check_claim(document: dict[str, Any]) -> None:
    """A claim that the pods name, with room for runs, which is kept as it is."""
    spec = document["spec"]
    assert document["apiVersion"] == "v1" and document["metadata"]["name"] == "lab3-runs"
    assert document["metadata"]["labels"]["app.kubernetes.io/name"] == "lab3"
    assert set(spec) <= {"accessModes", "resources", "storageClassName"}, set(spec)
    assert spec["accessModes"] in (["ReadWriteOnce"], ["ReadWriteMany"]), "runs are written"
    size = re.fullmatch(r"(\d+)Gi", spec["resources"]["requests"]["storage"])
    assert size and 5 <= int(size[1]) <= 1000


def check_kustomization(document: dict[str, Any]) -> None:
    """The base: files that are there, and an image that an overlay can set."""
    assert document["apiVersion"].startswith("kustomize.config.k8s.io/") and document["kind"] == "Kustomization"
    assert set(document) <= {"apiVersion", "kind", "resources", "images"}, set(document)
    assert document["resources"] == ["runs.yaml", "cronjob.yaml"], (
        "the claim comes first, and a Job has a command of its own"
    )
    (image,) = document["images"]
    assert set(image) == {"name", "newName", "newTag"} and image["name"] == "lab3"
    assert image["newTag"] not in ("", "latest"), "what runs tonight must be what ran yesterday"


def check_cron(expression: str) -> None:
    """Five fields that come true some day."""
    from croniter import croniter

    assert len(expression.split()) == 5 and croniter.is_valid(expression), expression
    croniter(expression).get_next()


def check_crontab(text: str) -> None:
    """A crontab: variables, and lines of five fields and a command without a bare percent sign."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    jobs = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    assert "SHELL=/bin/sh" in lines and any(line.startswith("PATH=/opt/lab3/bin:") for line in lines)
    assert jobs
    for line in jobs:
        *fields, command = line.split(maxsplit=5)
        check_cron(" ".join(fields))
        assert not re.search(r"(?<!\\)%", command), "cron ends a command at a percent sign"
        folder = re.match(r"cd (/\S+) && ", command)
        assert folder, "cron starts in the user's home"
        assert ">> nightly.jsonl 2>> nightly.log" in command, "cron mails what is printed, or drops it"
        assert re.search(r'--slot "\$\(date \+\\%F\)"', command), "a night is a slot"
        assert "--conflict-exit-code 75" in command and "--nonblock" in command and "--job" in command


def check_skypilot(task: dict[str, Any], *, is_spot: bool) -> None:
    """A SkyPilot task; a managed spot job recovers from 75 and never from 137."""
    assert set(task) <= {"name", "resources", "envs", "workdir", "file_mounts", "setup", "run"}, set(task)
    assert set(task["resources"]) <= {"accelerators", "use_spot", "disk_size", "job_recovery"}, set(task["resources"])
    assert all(type(n) is int and n > 0 for n in task["resources"]["accelerators"].values())
    assert 50 <= task["resources"]["disk_size"] <= 1000, "images of Python packages alone take gigabytes"
    assert task["envs"]["WANDB_API_KEY"] == "", "a key in a file is a key in a repository"
    assert task["setup"].startswith("set -e\n"), "a failed installation must not go on"
    assert "--constraint experiments/jobs/constraints.txt" in task["setup"]
    assert "'.[gpu]'" in task["setup"] and "--device gpu" in task["run"]
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
    assert set(document["services"]) == {"sweep", "dashboard"} and "runs" in document["volumes"]
    assert "--job" in sweep["command"] and "--slot" in sweep["command"]
    assert re.fullmatch(r"on-failure:\d+", sweep["restart"])
    assert sweep["stop_signal"] == "SIGTERM" and int(sweep["stop_grace_period"].removesuffix("s")) >= 10
    assert sweep["volumes"] == ["runs:/lab3/runs"], "what is in a container alone ends with it"
    assert [each["build"]["target"] for each in (sweep, dashboard)] == ["cpu", "dashboard"]
    assert sweep["environment"]["WANDB_API_KEY"].startswith("${"), "a key in a file is a key in a repository"
    assert "/healthz" in " ".join(dashboard["healthcheck"]["test"])
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
    assert "PIP_NO_CACHE_DIR=1" in text, "a cache in an image is weight"
    assert text.index("COPY experiments/jobs/constraints.txt") < text.index("COPY lab3"), "TensorFlow first, lab3 last"
    assert re.search(r"chown -R lab3 /lab3$", text, re.MULTILINE), "the user must be able to write runs"
    assert re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)[-1] == "cpu", "the last target is the default"


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
    for line in ("Type=oneshot", "DynamicUser=yes", "NoNewPrivileges=yes", "StateDirectory=lab3"):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


def check_timer(text: str) -> None:
    """A timer that comes once a night, also for a night that the machine slept through, and is enabled by name."""
    sections = dict(re.findall(r"^\[(\w+)\]\n((?:.+\n)*)", text, re.MULTILINE))
    assert set(sections) == {"Unit", "Timer", "Install"}, set(sections)
    timer = dict(line.split("=", 1) for line in sections["Timer"].splitlines())
    assert set(timer) == {"OnCalendar", "Persistent", "RandomizedDelaySec"}, set(timer)
    assert re.fullmatch(r"\*-\*-\* ([01]\d|2[0-3]):[0-5]\d:[0-5]\d", timer["OnCalendar"]), timer["OnCalendar"]
    assert timer["Persistent"] == "true" and 0 < int(timer["RandomizedDelaySec"]) <= 3600
    assert sections["Install"] == "WantedBy=timers.target\n" and "Description=" in sections["Unit"]


def check_constraints(text: str) -> None:
    """A version of everything that lab3 asks for, each once, from the index alone."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = [re.fullmatch(r"([a-z0-9][a-z0-9._-]*)==(\d[\w.]*)", line) for line in lines]
    assert all(pinned), [line for line, each in zip(lines, pinned, strict=True) if not each]
    names = [each[1] for each in pinned if each]
    assert names == sorted(set(names)), "each once, in order"
    needed = {"tensorflow", "keras", "wandb", "numpy", "scipy", "click", "matplotlib", "pydantic", "pillow", "h5py"}
    assert needed <= set(names), needed - set(names)


def check_dstack(task: dict[str, Any]) -> None:
    """A dstack task that survives the loss of its machine."""
    assert task["type"] == "task" and "interruption" in task["retry"]["on_events"] and task["max_duration"]
    last = task["commands"][-1]
    assert last.startswith("exec lab3 ") and "--job" in last and "--max-attempts" in last
    assert task["volumes"][0]["path"] in last
    assert task["env"] == ["WANDB_API_KEY"], "a name alone: its value stays where it is"
    assert re.fullmatch(r"3\.1[123]", task["python"]) and task["spot_policy"] in ("auto", "spot")
    assert all("--constraint experiments/jobs/constraints.txt" in each for each in task["commands"][:-1])
    assert int(task["resources"]["disk"].removesuffix("GB..")) >= 50


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
        assert any("lab3 compare" in command and "--against" in command for command in commands)
        assert any("--constraint experiments/jobs/constraints.txt" in command for command in commands)
        (kept,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
        assert kept["if"] == "always()", "a night that fails is the one to look at"
        (checkout,) = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
        assert checkout["with"]["persist-credentials"] is False


def check_launch(config: dict[str, Any]) -> None:
    """A W&B Launch configuration whose container is a job."""
    assert set(config) == {"overrides", "resource_args"} and set(config["overrides"]) == {"args", "entry_point"}
    assert config["overrides"]["entry_point"] == ["lab3"] and config["overrides"]["args"][0] == "run"
    assert config["overrides"]["args"][-2:] == ["--device", "gpu"], "without a GPU it must end, not compute for days"
    assert set(config["resource_args"]) == {"kubernetes"}
    resources = config["resource_args"]["kubernetes"]
    assert set(resources) <= {"env", "backoffLimit"}, set(resources)
    (env,) = [each for each in resources["env"] if each["name"] == "LAB3_JOB"]
    assert env["value"] == "1" and 0 < resources["backoffLimit"] <= 10
    assert not any("KEY" in each["name"] for each in resources["env"]), "the agent brings the key"


def first_command(path: Path) -> list[str]:
    """The command that the file's first comment names, as words."""
    lines = path.read_text().splitlines()
    line = next(line for line in lines if line.startswith("# "))
    return shlex.split(line.removeprefix("# "))
