"""Scheduled jobs: the same command any number of times, of which one run comes.

Knows schedulers by their variables and a run by its folder; what is computed, and what a person sees, is elsewhere.
"""

from lab3.app.jobs.job import check_starts, count_start, report_end, work_on
from lab3.app.jobs.slot import Slot, find_slot, job_id
from lab3.app.jobs.storage import check_storage

__all__ = ["Slot", "check_starts", "check_storage", "count_start", "find_slot", "job_id", "report_end", "work_on"]
