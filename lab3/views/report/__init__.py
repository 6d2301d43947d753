"""A run's folder as one page, with the same facts for programs and for people who paste."""

from lab3.views.report.gather import gather_report, is_several
from lab3.views.report.page import render_report, write_report

__all__ = ["gather_report", "is_several", "render_report", "write_report"]
