"""Arrays and a model in, results out: cut, capture, rank, sweep, and the check of a sweep by itself.

May know `base` and `inputs`; no configuration, no folder and no printing belong here.
"""
