"""Ways to merge a bracket. The table is in registry.py."""

from hdrcli.backends.registry import (
    BACKENDS,
    WEIGHT_NAMES,
    BackendSpec,
    Settings,
    check_backend,
    load_backend,
)

__all__ = ["BACKENDS", "WEIGHT_NAMES", "BackendSpec", "Settings", "check_backend", "load_backend"]
