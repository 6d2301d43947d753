"""How large a model may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelLimits:
    """Upper bounds; the settings `model.max_...` of an experiment.

    The largest networks of `keras.applications` have a configuration of 1.1 MB nested 14 deep, and 350 million
    parameters in 1.4 GB.
    """

    config_bytes: int = 8 * 2**20
    nesting: int = 100  # of the configuration's JSON, and of groups in HDF5
    parameters: int = 10**9
    bytes: int = 4 * 2**30  # of everything in the file, decompressed
