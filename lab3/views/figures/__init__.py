"""Pictures of a run. The only package that imports matplotlib."""

from lab3.views.figures.canvas import about, save_figure, short
from lab3.views.figures.curves import (
    plot_accuracy,
    plot_comparison,
    plot_confusion,
    plot_frontier,
    plot_learning_curves,
)
from lab3.views.figures.flips import image_pictures, plot_class_accuracy, plot_flips
from lab3.views.figures.maps import (
    channel_pictures,
    grey_limits,
    grid_columns,
    plot_before_after,
    plot_feature_map,
    plot_feature_maps,
)

__all__ = [
    "about", "channel_pictures", "grey_limits", "grid_columns", "image_pictures", "plot_accuracy", "plot_before_after",
    "plot_class_accuracy", "plot_comparison", "plot_confusion", "plot_feature_map", "plot_feature_maps", "plot_flips",
    "plot_frontier", "plot_learning_curves", "save_figure", "short",
]  # fmt: skip
