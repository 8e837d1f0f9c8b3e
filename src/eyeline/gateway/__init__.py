"""The HTTP door: uploads in, jobs, results, pictures, live events out."""

from eyeline.gateway.app import build_app
from eyeline.gateway.server import Gateway
from eyeline.gateway.state import State

__all__ = ["Gateway", "State", "build_app"]
