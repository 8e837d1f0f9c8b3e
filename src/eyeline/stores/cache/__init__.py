"""Caches: what duplicates are answered from."""

from eyeline.core.registry import Registry
from eyeline.stores.cache.base import Cache

CACHES: Registry[Cache] = Registry(
    "cache",
    {
        "sqlite": "eyeline.stores.cache.sqlite:SqliteCache",
        "memory": "eyeline.stores.cache.memory:MemoryCache",
        "redis": "eyeline.stores.cache.redis:RedisCache",
        "rediss": "eyeline.stores.cache.redis:RedisCache",
    },
    extras={"rediss": "redis"},
)


def open_cache(url: str) -> Cache:
    """The cache at `url`."""
    return CACHES.open(url)
