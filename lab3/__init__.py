"""lab3: how many channels does a layer really need? An exact pruning sweep over every K.

In a notebook::

    import lab3

    model = lab3.load_model("my.h5")
    result = lab3.sweep(model, images_nhwc, labels_n)
    result.plot()

Axis letters used in names throughout: N images, H rows, W columns, C channels (or units of a dense layer),
L labels (classes). `images_nhwc` has axes (N, H, W, C), `importance_c` has axis (C,).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab3.notebook import Sweep, load_model, sweep

__version__ = "0.1.0"
__all__ = ["Sweep", "__version__", "load_model", "sweep"]


def __getattr__(name: str) -> Any:
    # Keras takes seconds to import; `import lab3` and `lab3 --help` must not wait for it.
    if name in ("Sweep", "load_model", "sweep"):
        from lab3 import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'lab3' has no attribute {name!r}")
