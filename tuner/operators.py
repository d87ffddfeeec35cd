"""Where the time of a call goes, by a runtime's own clock: operator by operator."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kind = Literal["layer", "conversion", "other"]


@dataclass(frozen=True)
class OperatorTime:
    """What one operator of a compiled model takes of a call, ms; `name` is what the graph calls it.

    `kind` is `layer` for a convolution or a matrix product, with what is fused to it, `conversion` for what changes
    only how numbers are stored or laid out, else `other`. `computes_in` is its arithmetic, such as "int8" or "f32".
    """

    name: str
    kind: Kind
    computes_in: str
    ms: float


def kind_of(operator: str, layers: str, conversions: Collection[str]) -> Kind:
    """Of an operator by what its runtime calls it: `layers` is a pattern of theirs, `conversions` are names."""
    if operator in conversions:
        return "conversion"
    return "layer" if re.search(layers, operator) else "other"
