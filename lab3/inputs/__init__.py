"""Files become labelled images and Keras models, checked; networks are trained.

May know `base`; what is pruned, and where results go, does not belong here.
"""
