"""The run folder, written and read back: manifest, journal, tables.

May know what results and settings are; it draws nothing, and knows of no tracker.
"""
