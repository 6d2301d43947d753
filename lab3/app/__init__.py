"""Verbs (`pipeline`) and the command line (`cli`): the only room that joins the others.

Whatever could be done without a run's folder, a tracker and a terminal belongs elsewhere.
"""
