"""How a configuration joins its layers: few enough, in an order that Keras reads in one go, none on constants alone."""

from collections.abc import Iterator
from typing import Any

from lab3.errors import ModelError
from lab3.model_classes import VALUES

_MOST_CALLS = 10_000  # NASNet-Large, the largest of keras.applications, has 1,039
_MOST_TRIES = 100_000
_MOST_READS = 20_000


def check_structure(configuration: dict[str, Any]) -> None:
    """Raise `ModelError` if building the model would take long, or if a layer would compute at once on constants."""
    n_calls = _count_calls(configuration)
    if n_calls > _MOST_CALLS:
        raise ModelError(
            f"layers must be called at most {_MOST_CALLS:,} times, those of nested models at each call of the model, "
            f"got {n_calls:,}; build the model again with fewer"
        )
    n_reads = 0
    stack: list[Any] = [configuration]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if isinstance(value.get("layers"), list):
                n_reads += _count_reads([layer for layer in value["layers"] if isinstance(layer, dict)])
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    if n_reads > _MOST_READS:
        raise ModelError(
            f"layers must read at most {_MOST_READS:,} others, got {n_reads:,}; build the model again with fewer"
        )


def _count_calls(value: Any) -> int:
    """Calls of layers that building makes: a nested model runs once alone, and again at each of its own calls."""
    inner = 0
    if isinstance(value, list):
        for item in value:
            inner += _count_calls(item)
        return inner
    if not isinstance(value, dict):
        return 0
    for key, item in value.items():
        if key != "inbound_nodes":
            inner += _count_calls(item)
    if "class_name" not in value or value["class_name"] in VALUES:
        return inner
    n_calls = max(1, len(_nodes(value)))
    return n_calls + (1 + n_calls) * inner


def _count_reads(layers: list[dict[str, Any]]) -> int:
    """Outputs of others that the layers of one model read. Raises `ModelError` for one that reads none."""
    place_of = {layer.get("name"): place for place, layer in enumerate(layers) if isinstance(layer.get("name"), str)}
    n_reads, n_rounds = 0, 1
    for place, layer in enumerate(layers):
        for node in _nodes(layer):
            read = list(_layers_read(node))
            if not read:
                raise ModelError(
                    f"every call must be on what another layer gives, got one on constants of "
                    f"{str(layer.get('name'))[:60]!a}; save it again with model.save()"
                )
            n_reads += len(read)
            # Keras goes through the list again for a call of a layer that stands further down.
            n_rounds += any(place_of.get(name, -1) > place for name in read)
    if n_rounds * len(layers) > _MOST_TRIES:
        raise ModelError(
            f"layers must stand in the order they are called in, got {n_rounds:,} rounds through {len(layers):,} "
            "layers; save it again with model.save()"
        )
    return n_reads


def _nodes(layer: dict[str, Any]) -> list[Any]:
    nodes = layer.get("inbound_nodes")
    return nodes if isinstance(nodes, list) else []


def _layers_read(node: Any) -> Iterator[str]:
    """Names of the layers whose outputs a call reads, as Keras 3 writes calls or as Keras 2 did."""
    if isinstance(node, list):
        yield from (item[0] for item in node if isinstance(item, list) and item and isinstance(item[0], str))
        return
    stack = [node]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            history = value["config"].get("keras_history") if isinstance(value.get("config"), dict) else None
            if isinstance(history, list) and history and isinstance(history[0], str):
                yield history[0]
        elif isinstance(value, dict):
            stack.extend(value.values())
