"""What the engine and the plugins agree on about calling a torch module."""

import inspect
from collections.abc import Iterable
from typing import Any


def called_by_name(module: Any, names: Iterable[str]) -> bool:
    """Whether a torch module's forward has a parameter for each of these input names.

    If not, it is called with the inputs in order.
    """
    return set(inspect.signature(module.forward).parameters).issuperset(names)
