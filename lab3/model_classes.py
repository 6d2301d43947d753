"""Which Keras classes a model file may name: those that image classifiers are built from, none that holds code."""

import re
from collections.abc import Collection, Mapping

# Their configuration is code, or the name of a file with code: no setting makes them loadable.
NEVER_ALLOWED = frozenset({"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__"})

# Keras 2 wrote calls of TensorFlow functions so; Keras 3 has no such layers.
KERAS_2_OPERATIONS = frozenset({"ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda"})

# Values, not classes, in the two JSON dialects.
MARKERS = frozenset(
    "TensorShape __bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__".split()
)

# What constants in a configuration may be made of: others can be text of any length.
_NUMBER_TYPES = frozenset(
    "bfloat16 bool float16 float32 float64 int16 int32 int64 int8 uint16 uint32 uint64 uint8".split()
)

ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)

_MODELS = frozenset("Functional Model Sequential".split())

_LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling2D AdaptiveMaxPooling2D Add AdditiveAttention AlphaDropout
    Attention AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D
    BatchNormalization CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose
    Convolution1D Convolution2D Convolution2DTranspose Convolution3D Cropping1D Cropping2D Cropping3D Dense
    DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Equalization Flatten GaussianDropout
    GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D
    GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer LayerNormalization LeakyReLU Masking
    MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply
    Normalization PReLU Permute RMSNormalization RandomBrightness RandomColorDegeneration RandomColorJitter
    RandomContrast RandomCrop RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SeparableConvolution1D
    SeparableConvolution2D Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization Subtract TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)

_INITIALIZERS = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    """.split()
)

_OPTIMIZERS = frozenset(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop SGD".split()
)

_LOSSES = frozenset(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalHinge
    CosineSimilarity Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
    MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge
    """.split()
)

_METRICS = frozenset(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy CategoricalAccuracy CategoricalCrossentropy F1Score KLDivergence Mean
    MeanAbsoluteError MeanMetricWrapper MeanSquaredError Precision Recall RootMeanSquaredError SparseCategoricalAccuracy
    SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy Sum TopKCategoricalAccuracy
    """.split()
)

# What `x * 2 + y`, `keras.ops.relu(x)` and the like leave in a Functional model.
_NUMPY_OPERATIONS = frozenset(
    """
    Absolute Add Amax Amin Clip Concatenate Divide Equal Exp ExpandDims Flip Floor FloorDivide GetItem Greater
    GreaterEqual Less LessEqual Log Matmul Max Maximum Mean Min Minimum Moveaxis Multiply Negative NotEqual Pad Power
    Prod Ravel Reciprocal Reshape Roll Round Sign Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Tanh Transpose
    TrueDivide Var Where
    """.split()
)
_NN_OPERATIONS = frozenset(
    """
    AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Celu Conv DepthToSpace DepthwiseConv Elu Gelu Glu
    HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Normalize RMSNorm Relu
    Relu6 Selu Sigmoid Silu SoftShrink Softmax Softplus Softsign SpaceToDepth Squareplus TanhShrink Threshold
    """.split()
)

CLASSES_OF_MODULE: Mapping[str, frozenset[str]] = {
    "keras": _MODELS | {"DTypePolicy", "FloatDTypePolicy"},
    "keras.models": _MODELS,
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.layers": _LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"}),
    "keras.constraints": frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"}),
    "keras.dtype_policies": frozenset({"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"}),
    "keras.optimizers": _OPTIMIZERS,
    "keras.losses": _LOSSES,
    "keras.metrics": _METRICS,
    "keras.src.ops.numpy": _NUMPY_OPERATIONS,
    "keras.src.ops.nn": _NN_OPERATIONS,
    "keras.src.ops.image": frozenset({"CropImages", "PadImages", "RGBToGrayscale", "Resize"}),
    "keras.src.ops.core": frozenset({"Cast", "StopGradient"}),
    "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
}
# Settings of layers that are no layers themselves.
VALUES = (
    MARKERS
    | {"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy", "Policy", "function"}
    | (_INITIALIZERS - {"Identity"}).union(
        *(CLASSES_OF_MODULE[f"keras.{kind}"] for kind in ("regularizers", "constraints"))
    )
)
# Keras 2 named no modules; `Policy` is its name of a dtype policy.
_CLASSES = frozenset({"Policy"}).union(*CLASSES_OF_MODULE.values())


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
    if name in KERAS_2_OPERATIONS:
        return (
            f"{name} is an operation of Keras 2 that Keras 3 cannot load; "
            "build the model again with layers in its place, such as Add, Multiply or Rescaling"
        )
    if name in MARKERS and module is None:
        return _problem_of_numbers(item.get("config")) if name in ("__numpy__", "__tensor__") else None
    if name == "function":
        return _problem_of_function(item.get("config"), module, registered, allow_classes)
    if _is_allowed(name, None if registered is None else str(registered), allow_classes):
        return None
    known = _CLASSES if module is None else CLASSES_OF_MODULE.get(str(module), frozenset())
    if name not in known or registered not in (None, name):
        full = ".".join(str(part) for part in (module, name) if part is not None)
        if registered not in (None, name):
            full += f" registered as {registered}"
        return _not_allowed(full, name)
    return None


def problem_of_name(name: str) -> str | None:
    """What is wrong with the name of a class, as `Doubling` or `package>Doubling`, whatever is allowed."""
    if re.split("[.>]", name)[-1] in NEVER_ALLOWED:
        shown = name[:120] if name.isprintable() else ascii(name[:120])
        return f"{shown} layers hold code and are never loaded; build the model again without them"
    # Keras would look `layers.Lambda` of the module `keras` up in `keras.layers`.
    if "." in name.rpartition(">")[2]:
        return f"names of classes must be without dots, got {name[:120]!r}; give the name alone"
    return None


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
    if not isinstance(function, str):
        return f"function names must be text, got {str(function)[:60]!r}"
    if problem := problem_of_name(function):
        return problem
    if function in allow:
        return None
    of_keras = module in (None, "builtins", "keras.activations", "keras.src.activations.activations")
    if function not in ACTIVATIONS or not of_keras or registered not in (None, "function", function):
        return _not_allowed(function, function)
    return None


def _not_allowed(shown: str, name: str) -> str:
    return (
        f"{shown[:120]!r} is none of the Keras classes that lab3 loads; "
        f"if you trust it, register it with Keras and set model.allow_classes to [{name[:60]}]"
    )
