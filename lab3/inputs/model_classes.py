"""Which Keras classes a model file may name: those that image classifiers are built from, none that holds code."""

import re
import sys
from collections.abc import Collection, Mapping
from types import FunctionType
from typing import Any

# Their configuration is code, or the name of a file with code: no setting makes them loadable.
NEVER_ALLOWED = frozenset({"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__"})

MODELS = ("Functional", "Model", "Sequential")
_POLICIES = {"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"}
# Values, not classes.
_MARKERS = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
# Keras 2 wrote calls of TensorFlow functions so.
_KERAS_2_OPERATIONS = {"ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda"}
_KERAS_2_LAYERS = {"LocallyConnected1D", "LocallyConnected2D", "ThresholdedReLU"}
# The parts of `keras.layers` whose classes are handled: none of them reads a file or keeps a state between images.
_PACKAGES = re.compile(
    r"keras\.src\.layers\.(activations|attention|convolutional|core|merging|normalization|pooling|regularization"
    r"|reshaping|preprocessing\.(image_preprocessing|normalization|rescaling)|rnn\.time_distributed)\b"
)
# What `x * 2 + y`, `keras.ops.relu(x)` and the like leave in a Functional model; None: every operation of the module.
_OPERATIONS: Mapping[str, set[str] | None] = {
    "keras.src.ops.core": {"Cast", "StopGradient"},
    "keras.src.ops.image": None,
    "keras.src.ops.nn": None,
    "keras.src.ops.numpy": None,
}
_OF_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}


def module_of(name: str) -> str | None:
    """The module of a class that a file names without one, as Keras 2 does; None if it is none of Keras."""
    import keras

    if name in MODELS or name in _POLICIES:
        return "keras"
    is_layer = isinstance(getattr(keras.layers, name, None), type)
    return "keras.layers" if is_layer else _OF_APPLICATIONS.get(name)


def problem_of_class(item: Mapping[str, Any], allow_classes: Collection[str]) -> str | None:
    """What is wrong with a dictionary that names a class or a function in a model's configuration, None if nothing.

    `allow_classes`: names that the user allows besides Keras's own, with or without `package>` before them.
    """
    name, module, registered = item.get("class_name"), item.get("module"), item.get("registered_name")
    if name == "function":
        name, registered = item.get("config"), None if registered == "function" else registered
    if not isinstance(name, str) or not all(part is None or isinstance(part, str) for part in (module, registered)):
        return f"names of classes and functions must be text, got {str(name)[:60]!r}"
    for each in (name, registered or ""):
        if re.split("[.>]", each)[-1] in NEVER_ALLOWED:
            return f"{each[:120]} layers hold code and are never loaded; build the model again without them"
        # Keras would look `layers.Lambda` of the module `keras` up in `keras.layers`.
        if "." in each.rpartition(">")[2]:
            return f"names of classes must be without dots, got {each[:120]!r}; give the name alone"
    if name in _MARKERS and module is None:
        return None
    if name in _KERAS_2_OPERATIONS:
        return (
            f"{name} is an operation of Keras 2 that Keras 3 cannot load; "
            "build the model again with layers in its place, such as Add, Multiply or Rescaling"
        )
    if _is_allowed(name, registered, allow_classes):
        return None
    if registered in (None, name):
        if item["class_name"] == "function":
            is_known = _is_activation(name, module)
        else:
            is_known = _is_of_keras(name, module)
        if is_known:
            return None
    if module == "keras.layers" == module_of(name):
        return f"lab3 does not handle {name} layers, which Keras has; build the model again without them"
    if name in _KERAS_2_LAYERS:
        return f"{name} is a layer of Keras 2 that Keras 3 does not have; build the model again without it"
    full = (f"{module}." if module else "") + name
    full += "" if registered in (None, name) else f" registered as {registered}"
    return (
        f"{full[:120]!r} is none of the Keras classes that lab3 loads; "
        f"if you trust it, register it with Keras and set model.allow_classes to [{name[:60]}]"
    )


def _is_allowed(name: str, registered: str | None, allow: Collection[str]) -> bool:
    if registered in (None, name):
        return name in allow or name.rpartition(">")[2] in allow
    # Keras takes the class that `name` stands for where nothing is registered under the other name.
    last = registered.rpartition(">")[2]
    return (registered in allow or last in allow) and (name in allow or name == last)


def _is_activation(name: str, module: str | None) -> bool:
    import keras

    is_function = isinstance(getattr(keras.activations, name, None), FunctionType)
    modules = (None, "builtins", "keras.activations", "keras.src.activations.activations")
    return is_function and module in modules and name not in ("deserialize", "get", "serialize")


def _is_of_keras(name: str, module: str | None) -> bool:
    """True for the classes that are handled, by the module that a file says they are of."""
    import keras

    if module in ("keras", "keras.models", "keras.dtype_policies"):
        return name in (_POLICIES if module == "keras.dtype_policies" else {*MODELS, *_POLICIES})
    if module == "keras.layers":
        layer = getattr(keras.layers, name, None)
        return isinstance(layer, type) and bool(_PACKAGES.match(layer.__module__))
    if module is not None and module in _OPERATIONS and name in (_OPERATIONS[module] or {name}):
        operation = vars(sys.modules[module]).get(name)
        return isinstance(operation, type) and issubclass(operation, keras.Operation)
    return module is not None and module == _OF_APPLICATIONS.get(name)
