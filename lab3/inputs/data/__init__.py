"""Labelled images from every form lab3 reads, as plain arrays."""

from lab3.inputs.data.dataset import Dataset, check_dataset, split_validation
from lab3.inputs.data.sources import Split, load_dataset

__all__ = ["Dataset", "Split", "check_dataset", "load_dataset", "split_validation"]
