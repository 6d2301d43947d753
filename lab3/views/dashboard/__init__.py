"""A folder of runs as a local, read-only web service."""

from lab3.views.dashboard.service import make_service

__all__ = ["make_service"]
