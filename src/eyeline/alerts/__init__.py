"""Alerts: rules over the event log, notifications from their table, outputs of results, shift reports.

`AlertService` is the role; outputs and reports run beside it.
"""

from eyeline.alerts.outputs import OutputService
from eyeline.alerts.reports import ReportService
from eyeline.alerts.service import AlertService

__all__ = ["AlertService", "OutputService", "ReportService"]
