"""Pictures as text, so that a page is one file."""

import base64
import io

import numpy as np
from PIL import Image

_LARGEST_SIDE = 32


def sprite_of_maps(maps_hwc: np.ndarray) -> np.ndarray:
    """All channels' maps `(H, W, C)` in a near-square grid, uint8 on one grey scale, each at most 32 pixels a side."""
    from lab3.views.figures import channel_pictures

    step = -(-max(maps_hwc.shape[:2]) // _LARGEST_SIDE)
    return stitch(np.stack(channel_pictures(maps_hwc[::step, ::step], side=1)))


def stitch(pictures: np.ndarray) -> np.ndarray:
    """Pictures `(N, H, W)` or `(N, H, W, 3)` row by row in a grid of `n_columns(N)` columns; black where none is left.

    >>> stitch(np.ones((3, 1, 1), np.uint8)).tolist()
    [[1, 1], [1, 0]]
    """
    count, height, width, *colors = pictures.shape
    columns = n_columns(count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, *colors), np.uint8)
    grid[:count] = pictures
    grid = grid.reshape(rows, columns, height, width, *colors).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, *colors)


def n_columns(count: int) -> int:
    """Of a near-square grid.

    >>> n_columns(512), n_columns(0)
    (23, 1)
    """
    return max(1, int(np.ceil(np.sqrt(count))))


def data_uri(picture: np.ndarray) -> str:
    """A uint8 picture as a PNG in a `data:` address."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
