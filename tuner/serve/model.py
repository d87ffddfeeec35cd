"""What is served, as the protocol describes it."""

from dataclasses import dataclass
from typing import Any

from tuner.artifact import Artifact
from tuner.serve.protocol import DATATYPE_OF
from tuner.serve.replica import Layout

VERSION = "1"


@dataclass(frozen=True)
class Model:
    """What is served: the artifact's declared inputs, without a session, and what its outputs look like."""

    name: str
    artifact: Artifact
    outputs: Layout
    platform: str

    def metadata(self) -> dict[str, Any]:
        """As the protocol has it; -1 is the batch, and what differs from one declared length to another."""
        deployed = self.artifact
        free = {
            spec.name: [s.full(-1) for shape in deployed.shapes for s in shape.inputs if s.name == spec.name]
            or [spec.full(-1)]
            for spec in deployed.inputs
        }
        axes = deployed.outputs or (0,) * len(self.outputs)
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self.platform,
            "inputs": [
                {
                    "name": spec.name,
                    "datatype": DATATYPE_OF[spec.dtype],
                    "shape": [sizes[0] if len({*sizes}) == 1 else -1 for sizes in zip(*free[spec.name], strict=True)],
                }
                for spec in deployed.inputs
            ],
            "outputs": [
                {
                    "name": name,
                    "datatype": DATATYPE_OF[dtype],
                    "shape": [-1 if i == axis or deployed.shapes else size for i, size in enumerate(shape)],
                }
                for (name, shape, dtype), axis in zip(self.outputs, axes, strict=True)
            ],
        }
