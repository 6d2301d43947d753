"""What any program of this kind needs: files, arrays on disk, progress, the backend, a model as a graph.

May know errors and names of settings; knows nothing of pruning, of runs or of Weights & Biases.
"""
