"""Which Keras classes a model file may name: those that image classifiers are built from, none that holds code."""

import re
import sys
from collections.abc import Collection, Mapping
from types import FunctionType

# Their configuration is code, or the name of a file with code: no setting makes them loadable.
NEVER_ALLOWED = frozenset({"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__"})

# Keras 2 wrote calls of TensorFlow functions so.
_KERAS_2_OPERATIONS = {"ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda"}
_KERAS_2_LAYERS = {"LocallyConnected1D", "LocallyConnected2D", "ThresholdedReLU"}

# Values, not classes, in the two JSON dialects.
_MARKERS = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}

# What constants in a configuration may be made of: others can be text of any length.
_NUMBER_TYPES = set("bfloat16 bool float16 float32 float64 int16 int32 int64 int8 uint16 uint32 uint64 uint8".split())

MODELS = frozenset({"Functional", "Model", "Sequential"})
_POLICIES = {"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"}
# The parts of `keras.layers` whose classes are handled: none of them reads a file or keeps a state between images.
_PACKAGES = re.compile(
    r"keras\.src\.layers\.(activations|attention|convolutional|core|merging|normalization|pooling|regularization"
    r"|reshaping|preprocessing\.(image_preprocessing|normalization|rescaling)|rnn\.time_distributed)\b"
)
# What `x * 2 + y`, `keras.ops.relu(x)` and the like leave in a Functional model; None: every operation of the module.
_OPERATIONS: Mapping[str, set[str] | None] = {
    "keras.src.ops.numpy": None,
    "keras.src.ops.nn": None,
    "keras.src.ops.image": None,
    "keras.src.ops.core": {"Cast", "StopGradient"},
}
_OF_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}


def module_of(name: object) -> str | None:
    """The module of a class that a file names without one, as Keras 2 and `.h5` do; None if it is none of Keras."""
    import keras

    if name in MODELS or name in _POLICIES:
        return "keras"
    if isinstance(name, str) and isinstance(getattr(keras.layers, name, None), type):
        return "keras.layers"
    return _OF_APPLICATIONS.get(str(name))


def problem_of_class(item: Mapping[str, object], allow_classes: Collection[str]) -> str | None:
    """What is wrong with a dictionary that names a class or a function in a model's configuration, None if nothing.

    `allow_classes`: names that the user allows besides Keras's own, with or without `package>` before them.
    """
    name, module, registered = item.get("class_name"), item.get("module"), item.get("registered_name")
    if not isinstance(name, str) or not all(part is None or isinstance(part, str) for part in (module, registered)):
        return f"class names must be text, got {str(name)[:60]!r}"
    for text in (name, registered):
        if isinstance(text, str) and problem_of_name(text):
            return problem_of_name(text)
    if name in _KERAS_2_OPERATIONS:
        return (
            f"{name} is an operation of Keras 2 that Keras 3 cannot load; "
            "build the model again with layers in its place, such as Add, Multiply or Rescaling"
        )
    if name in _MARKERS and module is None:
        return _problem_of_numbers(item.get("config")) if name in ("__numpy__", "__tensor__") else None
    if name == "function":
        return _problem_of_function(item.get("config"), module, registered, allow_classes)
    if _is_allowed(name, None if registered is None else str(registered), allow_classes):
        return None
    if registered not in (None, name):
        return _not_allowed(f"{'' if module is None else f'{module}.'}{name} registered as {registered}", name)
    return _problem_of_keras_class(name, None if module is None else str(module))


def problem_of_name(name: str) -> str | None:
    """What is wrong with the name of a class, as `Doubling` or `package>Doubling`, whatever is allowed."""
    if re.split("[.>]", name)[-1] in NEVER_ALLOWED:
        shown = name[:120] if name.isprintable() else ascii(name[:120])
        return f"{shown} layers hold code and are never loaded; build the model again without them"
    # Keras would look `layers.Lambda` of the module `keras` up in `keras.layers`.
    if "." in name.rpartition(">")[2]:
        return f"names of classes must be without dots, got {name[:120]!r}; give the name alone"
    return None


def _problem_of_keras_class(name: str, module: str | None) -> str | None:
    import keras

    if module in ("keras", "keras.models") and name in MODELS:
        return None
    if module in ("keras", "keras.dtype_policies") and name in _POLICIES:
        return None
    if module is not None and module == _OF_APPLICATIONS.get(name):
        return None
    if module == "keras.layers":
        layer = getattr(keras.layers, name, None)
        if isinstance(layer, type) and issubclass(layer, keras.Layer):
            if _PACKAGES.match(layer.__module__):
                return None
            return f"lab3 does not handle {name} layers, which Keras has; build the model again without them"
    elif module in _OPERATIONS and name in (_OPERATIONS[module] or {name}):
        operation = vars(sys.modules.get(module)).get(name)
        if isinstance(operation, type) and issubclass(operation, keras.Operation):
            return None
    if name in _KERAS_2_LAYERS:
        return f"{name} is a layer of Keras 2 that Keras 3 does not have; build the model again without it"
    return _not_allowed(name if module is None else f"{module}.{name}", name)


def _is_allowed(name: str, registered: str | None, allow: Collection[str]) -> bool:
    if registered in (None, name):
        return name in allow or name.rpartition(">")[2] in allow
    # Keras takes the class that `name` stands for where nothing is registered under the other name.
    last = registered.rpartition(">")[2]
    return (registered in allow or last in allow) and (name in allow or name == last)


def _problem_of_numbers(config: object) -> str | None:
    dtype = config.get("dtype") if isinstance(config, Mapping) else None
    if not isinstance(dtype, str) or dtype not in _NUMBER_TYPES:
        return f"constants must be plain numbers, got {str(dtype)[:60]!r}; build the model again with float32"
    return None


def _problem_of_function(function: object, module: object, registered: object, allow: Collection[str]) -> str | None:
    import keras

    if not isinstance(function, str):
        return f"function names must be text, got {str(function)[:60]!r}"
    if problem := problem_of_name(function):
        return problem
    if function in allow:
        return None
    of_keras = module in (None, "builtins", "keras.activations", "keras.src.activations.activations")
    is_activation = isinstance(getattr(keras.activations, function, None), FunctionType)
    if not (of_keras and is_activation) or function in ("get", "serialize", "deserialize"):
        return _not_allowed(function, function)
    return None if registered in (None, "function", function) else _not_allowed(function, function)


def _not_allowed(shown: str, name: str) -> str:
    return (
        f"{shown[:120]!r} is none of the Keras classes that lab3 loads; "
        f"if you trust it, register it with Keras and set model.allow_classes to [{name[:60]}]"
    )
