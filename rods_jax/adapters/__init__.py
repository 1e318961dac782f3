"""Environments, tools, tasks and trajectories of other packages, in and out.  Nothing but commands imports this room.

Each module imports its package when it is used; docs/guide/adapters.md says which extra brings it.
"""

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """The module of another package. ImportError: it is not installed; the message names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} cannot be imported ({error}): pip install 'rods_jax[{extra}]'") from error
