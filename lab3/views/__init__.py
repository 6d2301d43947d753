"""Pictures of a record.

May know results and the record; what is not in a run's folder cannot be shown.
"""
