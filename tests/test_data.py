import hashlib
import io
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lab3.errors import DataError
from lab3.inputs.data import Dataset, check_dataset, cifar_archive, load_dataset, split_validation


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (value, 0, 255 - value)).save(content, "PNG")
    return content.getvalue()


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


FILES = {
    "dog/b.png": png(3),
    "cat/2.png": png(2),
    "cat/1.png": png(1),
    "dog/a.PNG": png(4),
    "cat/notes.txt": b"no image",
}


def test_digits_are_split_by_class_and_never_overlap() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert train.images_nhwc.shape == (1352, 8, 8, 1) and test.images_nhwc.shape == (445, 8, 8, 1)
    assert train.images_nhwc.dtype == np.uint8 and train.images_nhwc.max() == 16
    assert np.bincount(test.labels_n).tolist() == [44, 45, 44, 45, 45, 45, 45, 44, 43, 45]
    assert train.sha256 == "56495e2f12013529de7f246d6cb08cb4ca23c75047b90a0508c50203ca43323f"
    assert test.sha256 == "9b77854c68ff5462bc63bc4971bd7483deba79c6e3533be96ab90ea8538edb58"
    assert test.class_names == tuple("0123456789")
    assert not {image.tobytes() for image in train.images_nhwc} & {image.tobytes() for image in test.images_nhwc}


@pytest.mark.parametrize("prefix", ["", "photos/"])
@pytest.mark.parametrize("write", [write_tree, write_zip])
def test_image_files_are_read_in_order_of_name_with_classes_in_alphabetical_order(
    tmp_path: Path, write: Any, prefix: str
) -> None:
    files = {f"{prefix}{name}": content for name, content in FILES.items()} | {"__MACOSX/cat/1.png": b"junk"}
    dataset = load_dataset(str(write(tmp_path / "images.zip", files)), "test")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels_n.tolist() == [0, 0, 1, 1]
    assert dataset.images_nhwc[:, 0, 0, 0].tolist() == [1, 2, 4, 3]
    assert dataset.images_nhwc.dtype == np.uint8


def test_a_folder_with_train_and_test_gives_each_split(tmp_path: Path) -> None:
    files = {"train/a/1.png": png(1), "train/b/1.png": png(2), "test/a/1.png": png(3), "test/b/1.png": png(4)}
    for source in (write_tree(tmp_path / "both", files), write_zip(tmp_path / "both.zip", files)):
        assert load_dataset(str(source), "train").images_nhwc[:, 0, 0, 0].tolist() == [1, 2]
        assert load_dataset(str(source), "test").images_nhwc[:, 0, 0, 0].tolist() == [3, 4]


def test_grayscale_has_one_channel(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    assert load_dataset(str(path), "test", "grayscale").images_nhwc.shape == (4, 4, 4, 1)


def test_many_classes_are_read_in_time_that_grows_with_their_number_alone(tmp_path: Path) -> None:
    content = png(1)
    path = write_zip(tmp_path / "x.zip", {f"{number:04}/x.png": content for number in range(1_000)})
    dataset = load_dataset(str(path), "test")
    assert dataset.labels_n.tolist() == list(range(1_000)) and len(dataset.class_names or ()) == 1_000


def test_npz_in_keras_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "data.npz"
    x = rng.integers(0, 256, (3, 4, 4), np.uint8)
    np.savez(path, x_train=x, y_train=[[0], [1], [0]], x_test=x[:1].astype(np.float64), y_test=[1])
    train, test = load_dataset(str(path), "train"), load_dataset(str(path), "test")
    assert train.images_nhwc.shape == (3, 4, 4, 1) and train.labels_n.tolist() == [0, 1, 0]
    assert test.images_nhwc.dtype == np.float32 and test.labels_n.tolist() == [1]
    np.testing.assert_array_equal(train.images_nhwc[..., 0], x)


def cifar_batch(n: int, first_label: int) -> tuple[bytes, np.ndarray]:
    """A batch as NumPy of the archive's time pickled it, and its rows."""
    pixels = np.random.default_rng(first_label).integers(0, 256, (n, 3072), np.uint8)
    batch = {b"data": pixels, b"labels": [(first_label + i) % 10 for i in range(n)], b"batch_label": b"x"}
    pickled = pickle.dumps(batch, protocol=2).replace(b"numpy._core", b"numpy.core")
    return pickled.replace(b"\x89\x88\x87", b"K\x00K\x01\x87"), pixels


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The batches of a small archive, `archive.tar.gz` in `tmp_path`, which lab3 takes for the one there is."""
    files = {f"cifar-10-batches-py/data_batch_{i}": cifar_batch(2, i)[0] for i in range(1, 6)}
    files["cifar-10-batches-py/test_batch"] = cifar_batch(3, 7)[0]
    sha256 = hashlib.sha256(write_tar(tmp_path / "archive.tar.gz", files).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar_archive, "ARCHIVE_SHA256", sha256)
    for name, content in files.items():
        monkeypatch.setitem(cifar_archive.BATCH_MD5, Path(name).name, hashlib.md5(content).hexdigest())
    return files


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_cifar_archive_and_its_folder_are_channels_first_rows(cifar: dict[str, bytes], tmp_path: Path) -> None:
    pixels = cifar_batch(3, 7)[1]
    folder = write_tree(tmp_path / "unpacked", cifar)
    for source in (tmp_path / "archive.tar.gz", folder, folder / "cifar-10-batches-py"):
        test = load_dataset(str(source), "test")
        assert test.labels_n.tolist() == [7, 8, 9]
        assert test.class_names is not None and test.class_names[7:] == ("horse", "ship", "truck")
        assert test.images_nhwc.shape == (3, 32, 32, 3) and test.images_nhwc.dtype == np.uint8
        # Pixel 5 of the first row: red is column 5, green 1024 + 5, blue 2048 + 5.
        assert test.images_nhwc[1, 0, 5].tolist() == pixels[1, [5, 1029, 2053]].tolist()
        assert load_dataset(str(source), "train").labels_n.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


def test_another_archive_or_batch_is_refused_before_it_is_unpickled(
    cifar: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    evil = pickle.dumps({b"data": Evil(), b"labels": []})
    files = cifar | {"cifar-10-batches-py/test_batch": evil, "cifar-10-batches-py/data_batch_3": evil}
    folder = write_tree(tmp_path / "unpacked", files)
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    for source, kind in ((folder, "MD5"), (archive, "SHA-256")):
        for split in ("test", "train"):
            with pytest.raises(DataError, match=rf"lab3 reads the one CIFAR-10 archive, .* of {kind} .* to \.npz"):
                load_dataset(str(source), split)
    monkeypatch.setattr(cifar_archive, "ARCHIVE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"test_batch: lab3 reads the one CIFAR-10 archive, .* of MD5"):
        load_dataset(str(archive), "test")
    (folder / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(DataError, match=r"cannot be read: .*data_batch_2"):
        load_dataset(str(folder), "train")
    assert not (tmp_path / "ran").exists()


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "evil.npz", x_test=np.array([Evil()], object), y_test=[0])
    with pytest.raises(DataError, match=r"not a readable .npz without pickled objects"):
        load_dataset(str(tmp_path / "evil.npz"), "test")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("e.zip", {}, "there must be at least one test image <class>/<name>.jpg|png, got none"),
        ("e.zip", {"a/1.png": b"\x89PNG"}, "a/1.png: not a readable JPEG or PNG"),
        ("e.zip", {"a/1.png": png(1), "b/1.png": png(1, (5, 4))}, "got 4x4 for a/1.png and 5x4 for b/1.png; resize"),
        ("e.zip", {"1.png": png(1)}, "images must lie at <class>/<name>, got 1.png"),
        ("e.zip", {"a/b/c/d/1.png": png(1), "a/1.png": png(1)}, "images must lie at <class>/<name>"),
    ],
)
def test_image_files_that_cannot_be_used_say_why(
    tmp_path: Path, name: str, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(str(write_zip(tmp_path / name, files)), "test")
    assert message in str(caught.value)


def test_an_image_that_is_packed_twice_is_not_counted_twice(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": png(1), "a/2.png": png(2)})
    path.write_bytes(path.read_bytes().replace(b"a/2.png", b"a/1.png"))
    with pytest.raises(DataError, match="members must have different names, got one twice; pack it again"):
        load_dataset(str(path), "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"PK\x03\x04 torn", "not an intact .zip file"),
        ("x.npz", b"PK torn", "not a readable .npz"),
        ("x.tar.gz", b"torn", "lab3 reads the one CIFAR-10 archive, cifar-10-python.tar.gz, and"),
        ("x.csv", b"1,2", "is of no form lab3 reads; data must be digits, cifar10, or the path"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / name), "test")
    assert message in str(caught.value)


def test_npz_arrays_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for arrays, message in (
        ({"images": np.zeros(3)}, "must hold the arrays x_test and y_test (Keras layout), got images"),
        (
            {"x_test": np.zeros((2, 4)), "y_test": [0, 1]},
            "x_test must be uint8 or float (N, H, W, C), got float64 (2, 4)",
        ),
        ({"x_test": np.zeros((2, 4, 4, 1)), "y_test": [0.5, 1]}, "y_test must be integers (N,) or (N, 1)"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError) as caught:
            load_dataset(str(path), "test")
        assert message in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder; data must be digits, cifar10"):
        load_dataset(str(tmp_path / "none.zip"), "test")


def dataset(images: np.ndarray, labels: list[int], names: tuple[str, ...] | None = None) -> Dataset:
    return Dataset(images, np.array(labels, np.int64), names, "photos", "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(np.zeros((0, 4, 4, 3)), []), "photos: there must be at least one image, got none"),
        (dataset(np.zeros((2, 4, 4, 3)), [0]), "there must be one label per image, got 2 and 1"),
        (dataset(np.zeros((1, 5, 4, 3)), [0]), "the model takes images of 4x4x3, got 5x4x3; resize the images"),
        (
            dataset(np.zeros((1, 3, 4, 4)), [0]),
            "got 3x4x4; they look channels-first; lab3 wants (N, H, W, C): transpose",
        ),
        (dataset(np.full((3, 4, 4, 3), np.nan), [0, 0, 0]), "got NaN or infinity in 3 images, the first is number 0"),
        (
            dataset(np.zeros((2, 4, 4, 3)), [0, 2]),
            "labels must be in 0..1 (the model has 2 classes), got 2 for image 1",
        ),
        (dataset(np.zeros((2, 4, 4, 3)), [0, -1]), "got -1 for image 1 and 1 such labels in all"),
        (
            dataset(np.zeros((1, 4, 4, 3)), [0], ("a", "b", "c")),
            "the model has 2 classes but the images have 3 classes",
        ),
    ],
)
def test_data_that_does_not_fit_the_model_says_why(data: Dataset, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_dataset(data, (4, 4, 3), 2)
    assert message in str(caught.value)


def test_numbers_too_large_for_float32_are_told_without_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_test=np.array([1e300, -1e300]).reshape(2, 1, 1, 1), y_test=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huge = load_dataset(str(tmp_path / "x.npz"), "test")
        with pytest.raises(DataError, match="got NaN or infinity in 2 images, the first is number 0"):
            check_dataset(huge, (1, 1, 1), 2)


def test_grayscale_models_get_a_hint() -> None:
    with pytest.raises(DataError, match=r"decode them with --set data.color=grayscale"):
        check_dataset(dataset(np.zeros((1, 4, 4, 3)), [0]), (4, 4, 1), 2)


def test_validation_is_held_out_of_every_class_by_seed() -> None:
    labels_n = np.repeat([0, 1, 2], [40, 20, 10])
    train, validation = split_validation(labels_n, 0.2, seed=1)
    assert sorted([*train, *validation]) == list(range(70))
    assert np.bincount(labels_n[validation]).tolist() == [8, 4, 2]
    assert split_validation(labels_n, 0.2, seed=1)[1].tolist() == validation.tolist()
    assert split_validation(labels_n, 0.2, seed=2)[1].tolist() != validation.tolist()
    assert len(split_validation(labels_n, 0.0, seed=1)[1]) == 0
    with pytest.raises(
        DataError, match=r"validation_fraction=0.01 leaves class 0, 40 images, without one to train or to"
    ):
        split_validation(labels_n, 0.01, seed=1)
