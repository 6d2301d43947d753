"""What an HDF5 file holds, walked without following a link or reading a dataset."""

from collections.abc import Iterator
from typing import Any

import h5py

from lab3.errors import ModelError

_SAVE_AGAIN = "save it again with model.save()"
# Deflate, shuffle, Fletcher's checksum and LZF; HDF5 would look for the code of any other on this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


def list_arrays(file: Any) -> dict[str, Any]:
    """Every `h5py.Dataset` of an open `h5py.File` by its path, as `model_weights/conv/kernel:0`.

    Raises `ModelError` for a link, external or virtual data, an object under two names, another type than plain
    numbers, or a filter that is not part of h5py.
    """
    arrays = {path[1:]: item for path, item in _walk(file) if isinstance(item, h5py.Dataset)}
    for path, dataset in arrays.items():
        if problem := _problem_of(dataset):
            raise ModelError(f"arrays must {problem} in {path[:120]!r}; {_SAVE_AGAIN}")
    return arrays


def names_listed(file: Any, path: str, kind: str) -> list[str]:
    """Texts in the lists `kind` (`layer_names` or `weight_names`) of the group at `path`; Keras divides long lists."""
    attributes = file[path].attrs if path in file else {}
    keys = [key for key in attributes if key == kind or key.removeprefix(kind).isdecimal()]
    keys.sort(key=lambda key: int(key.removeprefix(kind) or 0))
    return [name.decode() if isinstance(name, bytes) else str(name) for key in keys for name in attributes[key]]


def _walk(file: Any) -> Iterator[tuple[str, Any]]:
    """Every object once, with its path from the root; a stack of its own, as HDF5's visitors recurse."""
    seen = {h5py.h5o.get_info(file.id).addr}
    stack: list[tuple[str, Any]] = [("", file["/"])]
    while stack:
        path, item = stack.pop()
        yield path, item
        for key in item if isinstance(item, h5py.Group) else ():
            inner = f"{path}/{key}"
            if item.id.links.get_info(key.encode("utf-8", "surrogateescape")).type != h5py.h5l.TYPE_HARD:
                raise ModelError(f"links to other places are not followed, got {inner[:120]!r}; {_SAVE_AGAIN}")
            child = item[key]
            if not isinstance(child, h5py.Group | h5py.Dataset):
                raise ModelError(f"it must hold groups and arrays alone, got {inner[:120]!r}; {_SAVE_AGAIN}")
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                raise ModelError(f"an object must have one name, got {inner[:120]!r} as another; {_SAVE_AGAIN}")
            seen.add(address)
            stack.append((inner, child))


def _problem_of(dataset: Any) -> str | None:
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        return "lie in the file itself, got one elsewhere"
    if {properties.get_filter(index)[0] for index in range(properties.get_nfilters())} - _FILTERS:
        return "be plain or compressed with gzip or LZF, got another filter"
    # bfloat16 is an opaque type of two bytes to NumPy.
    is_bfloat16 = dataset.dtype.kind == "V" and dataset.dtype.names is None and dataset.dtype.itemsize == 2
    if dataset.shape is None or dataset.dtype.subdtype or not (dataset.dtype.kind in "biuf" or is_bfloat16):
        return f"hold plain numbers, got {dataset.dtype}"
    return None
