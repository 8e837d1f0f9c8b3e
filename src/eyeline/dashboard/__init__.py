"""The web page: what operators and engineers see. Everything it needs is in this folder; nothing is loaded from elsewhere."""

from eyeline.dashboard.pages import dashboard_pages
from eyeline.dashboard.sources import Sources

__all__ = ["Sources", "dashboard_pages"]
