"""What an HDF5 file holds, walked without following a link or reading a dataset."""

from collections.abc import Collection, Iterator
from typing import Any

import h5py

from lab3.errors import ModelError
from lab3.foreign import problem_of_size
from lab3.model_inspection.limits import ModelLimits

_MOST_OBJECTS = 30_000  # NASNet-Large has 6,000
_MOST_ATTRIBUTES = 1_000  # of one object
_SAVE_AGAIN = "save it again with model.save()"
# Deflate, shuffle, Fletcher's checksum and LZF; HDF5 would look for the code of any other on this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
_ATTRIBUTE_TYPES = h5py.h5t.TypeStringID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeEnumID


def count_values(file: Any, stored_bytes: int, limits: ModelLimits) -> int:
    """Numbers in all datasets of an open `h5py.File` of `stored_bytes`.

    Raises `ModelError` for a link, external or virtual data, a reference, an object under two names, another type than
    plain numbers, a filter that is not part of h5py, or more than `limits` or the file's size allow.
    """
    n_values, n_bytes = 0, 0
    datasets: set[str] = set()
    groups: set[str] = set()
    lists: list[tuple[str, list[str], list[str]]] = []
    for name, item in _walk(file, limits):
        n_bytes += _check_attributes(item, name)
        if isinstance(item, h5py.Dataset):
            _check_dataset(item, name)
            datasets.add(name)
            n_values += item.size
            n_bytes += item.size * item.dtype.itemsize
        else:
            groups.add(name)
        if problem := problem_of_size(n_bytes, stored_bytes, limits.bytes, "model.max_bytes"):
            raise ModelError(problem)
        lists.append((name, _listed(item, "weight_names"), _listed(item, "layer_names")))
    for name, weights, layers in lists:
        _check_list(name, weights, datasets)
        _check_list(name, layers, groups)
        if inner := next((each for each in layers if "/" in each), None):
            raise ModelError(f"layers must be listed in the group they are in, got {inner[:120]!r}; {_SAVE_AGAIN}")
    return n_values


def _walk(file: Any, limits: ModelLimits) -> Iterator[tuple[str, Any]]:
    """Every object once, with its path from the root; a stack of its own, as HDF5's visitors recurse."""
    seen = {h5py.h5o.get_info(file.id).addr}
    stack: list[tuple[str, Any, int]] = [("", file["/"], 1)]
    while stack:
        path, item, depth = stack.pop()
        yield path, item
        if not isinstance(item, h5py.Group):
            continue
        if depth > limits.nesting:
            raise ModelError(
                f"groups must be nested at most {limits.nesting} deep, got more; "
                "if you trust it, raise model.max_nesting"
            )
        for key in item:
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
            if len(seen) > _MOST_OBJECTS:
                raise ModelError(f"it must hold at most {_MOST_OBJECTS:,} objects, got more; {_SAVE_AGAIN}")
            stack.append((inner, child, depth + 1))


def _check_dataset(dataset: Any, name: str) -> None:
    shown = repr(name[:120])
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise ModelError(f"arrays must lie in the file itself, got {shown} elsewhere; {_SAVE_AGAIN}")
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if filters - _FILTERS:
        raise ModelError(
            f"arrays must be plain or compressed with gzip or LZF, got another filter in {shown}; {_SAVE_AGAIN}"
        )
    # bfloat16 is an opaque type of two bytes to NumPy.
    is_bfloat16 = dataset.dtype.kind == "V" and dataset.dtype.names is None and dataset.dtype.itemsize == 2
    if dataset.shape is None or dataset.dtype.subdtype or not (dataset.dtype.kind in "biuf" or is_bfloat16):
        raise ModelError(f"arrays must hold plain numbers, got {dataset.dtype} in {shown}; {_SAVE_AGAIN}")


def _check_attributes(item: Any, name: str) -> int:
    """Bytes in the attributes of an object; text and plain numbers alone are allowed."""
    n_attributes = h5py.h5a.get_num_attrs(item.id)
    if n_attributes > _MOST_ATTRIBUTES:
        raise ModelError(
            f"an object must have at most {_MOST_ATTRIBUTES:,} attributes, got {n_attributes:,} at "
            f"{name[:120] or '/'!r}; {_SAVE_AGAIN}"
        )
    n_bytes = 0
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        kind = attribute.get_type()
        # h5py writes True and False as an enumeration.
        if not isinstance(kind, _ATTRIBUTE_TYPES):
            raise ModelError(
                f"attributes must be text or plain numbers, got another type at {name[:120] or '/'!r}; {_SAVE_AGAIN}"
            )
        n_bytes += attribute.get_space().get_simple_extent_npoints() * kind.get_size()
    return n_bytes


def _check_list(name: str, listed: list[str], known: Collection[str]) -> None:
    """Keras reads every array that a list names before it counts them: named twice, an array is in memory twice."""
    unknown = [each for each in listed if f"{name}/{each}" not in known]
    if unknown or len(set(listed)) < len(listed):
        raise ModelError(
            f"each layer and each weight must be listed once and be there, got {len(listed)} names and "
            f"{len(unknown)} without an array or a group at {name[:120] or '/'!r}; {_SAVE_AGAIN}"
        )


def _listed(item: Any, kind: str) -> list[str]:
    """Names in the lists of weights or layers at an object; Keras divides long lists."""
    return [
        name.decode() if isinstance(name, bytes) else str(name)
        for key in sorted(item.attrs)
        if key.startswith(kind)
        for name in item.attrs[key]
    ]
