"""Grids: many sweeps of one experiment over machines, with Ray.

The folder of a grid is its queue and its record: a worker starts or resumes a cell's run there, and nothing else says
what is done. `plan` names the cells, `work` is what a worker does with one, `cluster` gives them to Ray, `results`
compares what came out. Only `cluster` knows Ray.
"""
