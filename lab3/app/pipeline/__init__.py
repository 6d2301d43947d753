"""The recipes: run, train and resume an experiment, and what is done with runs. The only place that joins the parts."""

from lab3.app.pipeline.compacting import Tuning, compact_run
from lab3.app.pipeline.exporting import export_run
from lab3.app.pipeline.group import Group, is_group, resume_group, start_group, start_over
from lab3.app.pipeline.materials import load_configured_model
from lab3.app.pipeline.publish import publish_run
from lab3.app.pipeline.recipes import resume_run, start_run
from lab3.app.pipeline.rerun import rerun_run
from lab3.app.pipeline.session import Session
from lab3.app.pipeline.verify import Verified, verify_run
from lab3.record.rundir import is_run

__all__ = [
    "Group", "Session", "Tuning", "Verified", "compact_run", "export_run", "is_group", "is_run",
    "load_configured_model", "publish_run", "rerun_run", "resume_group", "resume_run", "start_group", "start_over",
    "start_run", "verify_run",
]  # fmt: skip
