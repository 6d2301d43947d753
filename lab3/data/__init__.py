"""Labelled images from every form lab3 reads, as plain arrays."""

from lab3.data.dataset import Dataset, check_dataset, split_validation
from lab3.data.sources import load_dataset, sha256_file

__all__ = ["Dataset", "check_dataset", "load_dataset", "sha256_file", "split_validation"]
