"""The runtime's own files, and a few lines that load them without the tuner."""

import shutil
from pathlib import Path
from typing import ClassVar

from tuner import artifact
from tuner.deploy.deployment import Deployment
from tuner.deploy.format import Format
from tuner.errors import RequestError

_EXACT, _ROUNDED = 1e-3, 3e-2  # how far answers may be from those of the machine that it was packaged on
_CHECK = '''\
"""Answers the example that came with the artifact, and compares: python check.py"""

from pathlib import Path

import numpy as np

from loader import run

with np.load(Path(__file__).with_name("example.npz")) as example:
    given = [name for name in example.files if name.startswith("input:")]
    inputs = {name.removeprefix("input:"): example[name] for name in given}
    expected = [example[f"output:{i}"] for i in range(len(example.files) - len(inputs))]
answers = run(inputs)
assert len(answers) == len(expected)
for answer, output in zip(answers, expected):
    largest = max(1.0, float(np.abs(output).max(initial=0)))
    np.testing.assert_allclose(answer, output, rtol={error}, atol={error} * largest)
print(f"the example of {len(expected)} outputs is answered as when it was packaged")
'''


class Plain(Format):
    name: ClassVar[str] = "plain"

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        manifest, candidate = deployment.manifest, deployment.manifest.candidate
        deployment.require_one_shape("a loader without the tuner")
        loader = candidate.backend.loader(manifest.inputs, deployment.batch_size, deployment.replica)
        if loader is None:
            raise RequestError(
                f"{candidate.label} needs the tuner, or the model's own code, to load: --format docker takes both along"
            )
        shutil.copytree(deployment.files, out / artifact.FILES)
        shutil.copyfile(deployment.folder / artifact.EXAMPLE, out / artifact.EXAMPLE)
        (out / "loader.py").write_text(_loader(deployment, loader))
        error = _EXACT if candidate.arithmetic == "f32" else _ROUNDED
        (out / "check.py").write_text(_CHECK.replace("{error}", str(error)))
        (out / "requirements.txt").write_text("\n".join(deployment.requirements()) + "\n")
        notes = ["pip install -r requirements.txt && python check.py: loader.py answers the example as it was packaged"]
        if deployment.batch_size > 1:
            notes.append(f"run() takes whole batches of {deployment.batch_size}; who has fewer samples fills up")
        if candidate.replicas > 1:
            notes.append(
                f"what was measured is {candidate.replicas} such processes side by side, {deployment.replica.threads} "
                "threads each; this is one"
            )
        return notes


def _loader(deployment: Deployment, loader: str) -> str:
    takes = ", ".join(
        f"{spec.name!r}: {spec.dtype} {spec.full(deployment.batch_size)}" for spec in deployment.manifest.inputs
    )
    gives = ", ".join(f"{output.dtype} {output.shape}" for output in deployment.outputs)
    return (
        f'"""{deployment.manifest.candidate.label}\n\nrun({{{takes}}}) -> [{gives}]\n"""\n\n'
        f'from pathlib import Path\n\nfiles = Path(__file__).with_name("{artifact.FILES}")\n\n{loader}'
    )
