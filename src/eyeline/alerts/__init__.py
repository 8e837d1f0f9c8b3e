"""Alerts: rules over the event log, notifications from their table, outputs of results, shift reports.

`service.AlertService` is the role; `outputs` and `reports` run beside it. Nothing is imported here: who only checks the
rules of a settings file needs none of the services.
"""
