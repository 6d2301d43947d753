"""What a sweep's counts say: how many channels can be pruned with what confidence, and which images it loses.

May know the results of pruning; arrays, numbers and points in, no folders and no settings.
"""
