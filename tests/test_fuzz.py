"""Readers return or raise a Lab3Error, whatever they are given. `make fuzz` tries for as long as one likes."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lab3.app.pipeline import verify_run
from lab3.config import Config, load_config
from lab3.errors import ConfigError, DataError, ModelError, RunStateError
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import load_model
from lab3.inputs.training import Epoch
from lab3.record.journal import encode_row, open_journal, read_journal
from lab3.record.readers import points_of_rows, read_capture, read_epochs, read_points
from lab3.record.rundir import RunDir
from lab3.record.tables import row_of_epoch
from tests.hostile_files import HEADER, POINT, Place, make_place, png, set_config, signed, zip_with
from tests.strategies import json_values

N_EXAMPLES = int(os.environ.get("LAB3_FUZZ_EXAMPLES", "25"))
fuzz = settings(
    max_examples=N_EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(fuzz, max_examples=5 * N_EXAMPLES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("fuzz"))


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes replaced, and perhaps its end lost."""
    places = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8)

    def damage(changes: list[tuple[int, int]], length: int) -> bytes:
        content = bytearray(whole)
        for at, value in changes:
            content[at] = value
        return bytes(content[:length])

    return st.builds(damage, places, st.just(len(whole)) | st.integers(1, len(whole)))


YAML_PARTS = st.sampled_from(
    "seed name data model train prune sweep tracking test path mean schedule layer : - [ ] { } , ? & * ! | > ' \" % @ "
    "# !!int !!float !!binary !!timestamp !!set !!omap !!pairs !!python/tuple <<: *a &a --- ... 1 -1 0x1 1e9 1:1 .nan "
    ".inf null true 0:C:1 2020-01-01 ~ \n \t \0 \x85 \ufeff \U0001f600".split(" ")
)
yaml_texts = st.lists(YAML_PARTS | st.just(" ") | st.just("\n  ") | st.text(max_size=3), max_size=30).map("".join)
SECTIONS = ("data", "model", "train", "prune", "sweep", "tracking")
KEYS = sorted({key for name in SECTIONS for key in Config.model_fields[name].annotation.model_fields})  # type: ignore[union-attr]
settings_values = json_values | st.sampled_from(
    ["0:C:1", "0:C:0", [0, 1], [-1], "vgg16", "adam", "digits", 1e-3, 2**70, "²"]
)
sections = st.dictionaries(st.sampled_from([*KEYS, "str", "list["]) | st.text(max_size=5), settings_values, max_size=4)
experiments = st.one_of(
    st.dictionaries(st.sampled_from(SECTIONS), sections, max_size=4).map(lambda values: json.dumps(values).encode()),
    yaml_texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=100),
    st.dictionaries(
        st.sampled_from(["seed", "data", "model", "train", "sweep"]) | st.text(), json_values, max_size=4
    ).map(lambda values: json.dumps(values).encode()),
)


@many
@given(experiments)
def test_yaml_experiments(place: Place, content: bytes) -> None:
    path = place.folder / "experiment.yaml"
    path.write_bytes(content)
    try:
        load_config(path)
    except ConfigError:
        pass


@many
@given(yaml_texts)
def test_yaml_overrides(text: str) -> None:
    try:
        load_config(None, [text])
        load_config(None, [f"model.path={text}"])
    except ConfigError:
        pass


lines = st.one_of(
    st.binary(max_size=60).map(lambda line: line + b"\n"),
    st.binary(max_size=60).map(lambda body: signed(body + b"}")),
    st.dictionaries(st.sampled_from(sorted(POINT)) | st.text(), json_values, max_size=9).map(
        lambda row: signed(json.dumps(POINT | row).encode())
    ),
)


@many
@given(st.lists(lines, max_size=5))
def test_journal_of_any_lines(place: Place, content: list[bytes]) -> None:
    read_every_way(place.folder / "journal.jsonl", HEADER + b"".join(content))


@many
@given(damaged(HEADER + b"".join(encode_row(POINT | {"k": k}) for k in range(3))) | st.binary(max_size=200))
def test_journal_damaged(place: Place, content: bytes) -> None:
    read_every_way(place.folder / "journal.jsonl", content)


def read_every_way(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        points_of_rows(read_journal(path), path)
    except RunStateError:
        pass
    try:
        with open_journal(path, {"journal": 1}) as journal:
            journal.append({"k": 9})
    except RunStateError:
        # Nothing is cut from a journal that is refused.
        assert path.read_bytes() == content
    else:
        assert read_journal(path)[-1] == {"k": 9}


names = st.sampled_from(
    [*sorted(name for name in dir(keras.layers) if name[0].isupper()), "Functional", "function", "__keras_tensor__"]
)
values = st.one_of(json_values, st.sampled_from([10**9, -1, [], {}, "relu", "same", [None, 4, 4, 1], 2**63]))
keys = st.sampled_from(
    "name units filters kernel_size strides padding activation batch_shape axis layers config class_name module dtype "
    "kernel_initializer size target_shape rate mean variance input_layers output_layers inbound_nodes".split()
)
items: Any = st.deferred(
    lambda: st.fixed_dictionaries(
        {"class_name": names | values, "config": configs | values}, optional={"module": values, "name": st.text()}
    )
)
configs: Any = st.dictionaries(keys, st.one_of(values, items, st.lists(items, max_size=3)), max_size=5)


@many
@given(
    st.one_of(items, values).map(lambda item: json.dumps(item).encode())
    | st.binary(max_size=50).filter(lambda text: b"\0" not in text)
)
def test_model_configurations(place: Place, text: bytes) -> None:
    import h5py

    path = place.folder / "configuration.h5"
    with h5py.File(path, "w") as file:
        set_config(file, text)
    try:
        load_model(path)
    except ModelError:
        pass


@fuzz
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), keys, st.one_of(values, items)), min_size=1, max_size=3))
def test_model_with_other_settings(place: Place, changes: list[tuple[int, str, Any]]) -> None:
    from tests.hostile_files import h5_config

    def change(config: Any) -> None:
        for index, key, value in changes:
            config["config"]["layers"][index]["config"][key] = value

    try:
        load_model(h5_config(place, change))
    except ModelError:
        pass


@pytest.mark.parametrize("base", ["h5", "keras"])
@fuzz
@given(data=st.data())
def test_model_damaged(place: Place, base: str, data: Any) -> None:
    good: Path = getattr(place, base)
    path = place.folder / f"damaged.{base}"
    path.write_bytes(data.draw(damaged(good.read_bytes())))
    try:
        load_model(path)
    except ModelError:
        pass


def npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, x_test=np.zeros((2, 4, 4, 1), np.uint8), y_test=np.array([0, 1]))
    return content.getvalue()


def jpeg(is_progressive: bool) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(content, "JPEG", progressive=is_progressive)
    return content.getvalue()


GOOD_DATA: dict[str, Callable[[Place], bytes]] = {
    "images.zip": lambda place: zip_with(place, {}).read_bytes(),
    "data.npz": lambda _: npz(),
}


@pytest.mark.parametrize("name", GOOD_DATA)
@many
@given(data=st.data())
def test_data_damaged(place: Place, name: str, data: Any) -> None:
    path = place.folder / name
    path.write_bytes(data.draw(damaged(GOOD_DATA[name](place))))
    try:
        load_dataset(str(path), "test")
    except DataError:
        pass


@many
@given(data=st.data())
def test_data_of_damaged_images(place: Place, data: Any) -> None:
    images = place.folder / "images"
    (images / "a").mkdir(parents=True, exist_ok=True)
    for name in ("1.png", "1.jpg"):
        (images / "a" / name).unlink(missing_ok=True)
    if data.draw(st.booleans()):
        (images / "a" / "1.png").write_bytes(data.draw(damaged(png())))
    else:
        (images / "a" / "1.jpg").write_bytes(data.draw(damaged(jpeg(data.draw(st.booleans())))))
    try:
        load_dataset(str(images), "test")
    except DataError:
        pass


@fuzz
@given(st.text(max_size=300), st.sampled_from(["", ".h5", ".keras", ".npz", ".zip", ".tar.gz"]))
def test_model_and_data_paths(name: str, suffix: str) -> None:
    for read in (load_model, lambda path: load_dataset(path, "test")):
        try:
            read(name + suffix)
        except (ModelError, DataError):
            pass


@pytest.fixture(scope="module")
def finished_run(toy_folder: Path, place: Place) -> Path:
    return Path(shutil.copytree(toy_folder / "runs" / "toy", place.folder / "run"))


def changed(values: Any, path: list[int], value: Any) -> Any:
    """JSON values with one of them, chosen by the numbers of `path`, replaced."""
    if not path or not isinstance(values, dict) or not values:
        return value
    key = sorted(values)[path[0] % len(values)]
    return values | {key: changed(values[key], path[1:], value)}


@fuzz
@given(data=st.data())
def test_run_folder_damaged(finished_run: Path, data: Any) -> None:
    files = sorted(path for path in finished_run.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    contents = damaged(whole)
    if path.suffix == ".json":
        places = st.lists(st.integers(0, 30), min_size=1, max_size=3)
        contents |= st.builds(
            lambda at, value: json.dumps(changed(json.loads(whole), at, value)).encode(), places, json_values
        )
    content = data.draw(contents)
    path.write_bytes(content)
    try:
        found = verify_run(finished_run)
        # A process that is killed as it ends leaves all but the last line of its attempts.
        is_cut = path.name == "attempts.jsonl" and whole.startswith(content) and content.endswith(b"\n")
        assert found.problems or content == whole or is_cut
        run = RunDir(finished_run)
        for read in (run.read_config, run.read_manifest, lambda: read_capture(run), lambda: read_points(run)):
            try:
                read()
            except (ConfigError, RunStateError):
                pass
    finally:
        path.write_bytes(whole)


EPOCHS = [encode_row({"journal": 1}), *(encode_row(row_of_epoch(Epoch(n, 0.5, 0.75, None, 1.0), "0")) for n in (1, 2))]
epoch_lines = st.dictionaries(st.sampled_from(["epoch", "loss", "checkpoint"]), json_values, max_size=2).map(
    lambda row: signed(json.dumps({**row_of_epoch(Epoch(3, 0.5, 0.75, None, 1.0), "0"), **row}).encode())
)


@many
@given(damaged(b"".join(EPOCHS)) | epoch_lines.map(lambda line: b"".join([*EPOCHS, line])))
def test_run_folder_with_other_epochs(place: Place, content: bytes) -> None:
    run = RunDir(place.folder)
    run.epochs_jsonl.write_bytes(content)
    try:
        read_epochs(run)
    except RunStateError:
        pass
