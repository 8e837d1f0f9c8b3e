"""The items role: what is seen frame after frame becomes one item, behind the results and in nobody's way."""

from eyeline.items.service import ItemService

__all__ = ["ItemService"]
