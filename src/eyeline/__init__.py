"""Eyeline turns a trained vision model into a dependable service."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyeline_client import AsyncClient as AsyncClient
    from eyeline_client import Client as Client

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The clients are a distribution of their own (docs/decisions/0012), loaded when somebody asks for them."""
    if name not in {"AsyncClient", "Client"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module("eyeline_client"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"eyeline.{name} needs {error.name}: pip install eyeline-client") from error
