"""Modules by the names they had before, so that what users keep still opens.

Saved torch modules, schedules and MLflow models name modules of the tuner that made them.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = {
    "tuner.scheduler": "tuner.schedule.scheduler",  # the job of every schedule: tuner.scheduler:due
    "tuner.workloads": "tuner.plugins.models",
    "tuner.workloads.digits": "tuner.plugins.datasets.digits",
    "tuner.workloads.networks": "tuner.plugins.models.digits_networks",  # classes inside saved modules
}
CLASSES = {  # as a file of one's own under conf/ may name them
    "tuner.dataset.Npz": "tuner.plugins.datasets.npz.Npz",
    "tuner.workload.OnnxModel": "tuner.plugins.models.onnx_file.OnnxModel",
    "tuner.workload.TorchModel": "tuner.plugins.models.torch_module.TorchModel",
}


class _Former(MetaPathFinder, Loader):
    """Answers the import of a former name with the module that has the present one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(NAMES[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run already; the import machinery has just given it the former name's spec."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def present(path: str) -> str:
    """The dotted path that a class has now."""
    return CLASSES.get(path, path)


def install() -> None:
    """Makes former names importable in this process. Called when `tuner` is imported."""
    sys.meta_path.append(_Former())
