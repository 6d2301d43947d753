from pathlib import Path

import pytest
import yaml

from lab3.config import Config, dump_config, load_config
from lab3.errors import ConfigError

ROOT = Path(__file__).parents[1]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def error_of(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_every_experiment_and_the_tracking_file_are_valid_and_name_their_command() -> None:
    experiments = sorted((ROOT / "experiments").glob("*.yaml"))
    assert len(experiments) >= 3
    for path in experiments:
        config = load_config(path, tracking_file=ROOT / "wandb_config.yaml")
        assert config.name == path.stem
        assert path.read_text().startswith(f"# lab3 run experiments/{path.name}")


def test_strength_is_override_then_experiment_then_tracking_file_then_default(tmp_path: Path) -> None:
    tracking = write(tmp_path / "w.yaml", "project: from_file\nentity: me\ntags: [a]\n")
    experiment = write(tmp_path / "e.yaml", "seed: 3\ntracking: {project: from_experiment}\ntrain: {epochs: 2}\n")
    config = load_config(experiment, ["train.epochs=5", "prune.layer=-12"], tracking)
    assert (config.tracking.project, config.tracking.entity, config.tracking.tags) == ("from_experiment", "me", ["a"])
    assert (config.seed, config.train.epochs, config.train.batch_size, config.prune.layer) == (3, 5, 64, -12)


def test_all_problems_are_told_at_once_with_key_rule_and_value(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.yaml",
        "sede: 1\nseed: '1'\ntrain: {epochs: 0, learnin_rate: 0.1, batch_size: 1.5}\n"
        "prune: {ranking: onse, layer: [a]}\nsweep: {schedule: 0-C, feature_maps_k: 3}\n"
        "data: {mean: [0.1, x], std: 0}\n",
    )
    assert error_of(path).splitlines() == [
        f"{path}: 11 problems",
        "  seed: must be an integer, got '1'",
        "  data.mean.1: must be a number, got 'x'",
        "  data.std: must be greater than 0 or a list, got 0",
        "  train.epochs: must be at least 1, got 0",
        "  train.batch_size: must be an integer, got 1.5",
        "  train.learnin_rate: unknown key, did you mean train.learning_rate?",
        "  prune.layer: must be text or an integer, got ['a']",
        "  prune.ranking: must be one of 'once', 'iterative' (did you mean once?), got 'onse'",
        "  sweep.schedule: must be 'start:stop:step' with integers, a positive step and C for the number of "
        "channels, or a list of K, got '0-C'",
        "  sweep.feature_maps_k: must be a list, got 3",
        "  sede: unknown key, did you mean seed?",
    ]


def test_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(ROOT / "experiments" / "simplecnn_cifar10.yaml", ["prune.layer='12'", "sweep.schedule=[0, 3]"])
    assert load_config(write(tmp_path / "config.yaml", dump_config(config))) == config
    assert config.prune.layer == "12"


def test_numbers_with_an_exponent_are_numbers_and_dates_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "e.yaml", "train: {learning_rate: 1e-3}\ntracking: {notes: 2026-01-02}\n")
    config = load_config(path)
    assert config.train.learning_rate == 0.001
    assert config.tracking.notes == "2026-01-02"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "line 2, column 1: not valid YAML: key 'seed' twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must hold `key: value` lines, got [1]"),
        ("data: 5\n", "data: must hold `key: value` lines, got 5"),
        ("name: ../x\n", "name: must be 1 to 64 letters, digits"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("seed: .nan\n", "seed: must be an integer, got nan"),
        ("'list[': 1\n", "  list[: unknown key; known here: name, seed"),
        ("train: {str: 1}\n", "  train.str: unknown key; known here: "),
        ('"\\e[2J": 1\n', "  '\\x1b[2J': unknown key"),
    ],
)
def test_a_file_that_is_no_experiment_says_where_and_why(tmp_path: Path, text: str, message: str) -> None:
    assert message in error_of(write(tmp_path / "e.yaml", text))


def test_missing_file_and_malformed_override_say_what_to_do(tmp_path: Path) -> None:
    assert "no such file; experiments/ holds examples" in error_of(tmp_path / "none.yaml")
    assert "--set must be key=value with a dotted key, got 'train.epochs'" in error_of(None, "train.epochs")
    assert error_of(None, "train.epoch=3").endswith("train.epoch: unknown key, did you mean train.epochs?")


def test_tracking_file_is_checked_under_its_own_name(tmp_path: Path) -> None:
    tracking = write(tmp_path / "wandb_config.yaml", "projekt: x\napi_key: secret\n")
    with pytest.raises(ConfigError) as caught:
        load_config(None, [], tracking)
    text = str(caught.value)
    assert text.startswith(f"{tracking}: 2 problems")
    assert "projekt: unknown key, did you mean project?" in text
    assert "secret" not in text


def test_every_setting_of_the_defaults_can_be_written_as_yaml() -> None:
    assert yaml.safe_load(dump_config(Config()))["sweep"]["schedule"] == "0:C:1"


def test_the_wandb_sweep_hands_over_settings_that_exist() -> None:
    sweep = yaml.safe_load((ROOT / "experiments" / "wandb" / "criteria.yaml").read_text())
    program, command, experiment, macro = sweep["command"]
    assert (program, command, macro) == ("lab3", "run", "${args_no_hyphens}")
    assert sweep["metric"]["name"] == "best/accuracy"
    for name, parameter in sweep["parameters"].items():
        for value in parameter["values"]:
            config = load_config(ROOT / experiment, [f"{name}={value}"]).model_dump()
            section, _, key = name.rpartition(".")
            assert (config[section] if section else config)[key] == value
