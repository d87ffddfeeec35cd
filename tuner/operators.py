"""Where the time of a call goes, by a runtime's own clock: operator by operator."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OperatorTime:
    """What one operator of a compiled model takes of a call, ms; `name` is what the graph calls it.

    `kind` is `layer` for a convolution or a matrix product, with what is fused to it, `conversion` for what changes
    only how numbers are stored or laid out, else `other`. `computes_in` is its arithmetic, such as "int8" or "f32".
    """

    name: str
    kind: Literal["layer", "conversion", "other"]
    computes_in: str
    ms: float
