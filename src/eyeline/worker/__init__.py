"""The worker: receive → load → decode → plan → infer → save → acknowledge."""

from eyeline.worker.worker import Worker

__all__ = ["Worker"]
