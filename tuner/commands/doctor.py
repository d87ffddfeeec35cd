"""`tune doctor`: what this machine can tune for, what is missing and why; `--install` has pip get it."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tuner import catalog
from tuner.build.available import unavailable
from tuner.build.store import Store
from tuner.device import Device
from tuner.errors import ExitCode, RequestError
from tuner.executors.base import NodeReport, executor
from tuner.model import ModelSource
from tuner.plugin import Backend, Transform
from tuner.report.terminal import Terminal
from tuner.request import compose
from tuner.request.request import Request
from tuner.study.usable import needed
from tuner.system import interpreters
from tuner.system.files import folder, require_place
from tuner.system.launcher import Launcher, install_name
from tuner.system.machine import cpu_name
from tuner.system.spelling import unknown_name

_INSTALL = "--install"


def run(arguments: Sequence[str]) -> ExitCode:
    """Checks the target and every plugin of the space; OK where a study could start. `--install NAME` makes the Python
    environment of a plugin whose libraries fit nobody else's, and checks nothing."""
    if _INSTALL in arguments:
        return _install(list(arguments))
    terminal = Terminal()
    request = compose.request(arguments)
    memory_gb = psutil.virtual_memory().total / 1e9
    disk_gb = shutil.disk_usage(Path.home()).free / 1e9
    terminal.line(f"cpu      {cpu_name()}, {request.target.cores} threads for a session")
    terminal.line(f"memory   {memory_gb:.0f} GB, disk {disk_gb:.0f} GB free")
    devices = sorted((hardware() for hardware in catalog.members(Device)), key=lambda device: not device.host)
    terminal.table(
        ("device", "here"), [(device.name, ", ".join(device.found()) or device.absence()) for device in devices]
    )
    terminal.table(("target", "device", "precisions", "here"), _targets(arguments))
    try:
        terminal.line(f"target   {request.target.name}: {request.target.check()}")
    except RequestError as error:
        terminal.line(f"target   {error}", bad=True)
        _tell_nodes(terminal, request)
        return ExitCode.WRONG_REQUEST
    plugins = request.space.plugins
    with tempfile.TemporaryDirectory() as scratch, terminal.busy("asking every plugin"):
        environments = Store(request.cache_dir).environments
        launcher = Launcher(request.limits.memory_mb, request.target.environment, environments)
        reasons = unavailable(plugins, request.target, Store(Path(scratch)), launcher, Path(scratch) / "log")
    kinds = ["backend" if isinstance(plugin, Backend) else "transform" for plugin in plugins]
    rows = [(kind, plugin.label, reasons.get(plugin, "yes")) for kind, plugin in zip(kinds, plugins, strict=True)]
    terminal.table(("kind", "plugin", "can run here"), rows)
    _tell_nodes(terminal, request)
    runs = any(isinstance(plugin, Backend) and plugin not in reasons for plugin in plugins)
    return ExitCode.OK if runs else ExitCode.WRONG_REQUEST


def _tell_nodes(terminal: Terminal, request: Request) -> None:
    """The machines of a cluster, whether or not this one has the device: it may be theirs."""
    with terminal.busy("asking every node"):
        nodes = executor(request.executor).nodes(request.target, needed(request), request.cache_dir)
    if nodes:
        terminal.table(("node", "device", "CPUs", "trials of this study"), [_row(node) for node in nodes])


def _targets(arguments: Sequence[str]) -> Iterator[Sequence[str | None]]:
    """What is known of each target, and whether it is here."""
    for name, target in sorted(compose.targets(arguments).items()):
        try:
            here = target.hardware.find(target.device_name)
        except RequestError:
            here = None
        yield name, target.device, ", ".join(target.precisions) or None, here


def _install(arguments: list[str]) -> ExitCode:
    """Makes the environment of the plugin whose name follows. Raises RequestError where there is no such plugin, or pip
    cannot have what it needs."""
    place = arguments.index(_INSTALL)
    names = arguments[place + 1 : place + 2]
    cache = folder(compose.composed(arguments[:place] + arguments[place + 2 :]).cache_dir)
    every = (*catalog.members(Backend), *catalog.members(Transform), *catalog.members(ModelSource))
    needing = {install_name(kind): kind.requirements for kind in every if kind.requirements}
    if not names or names[0] not in needing:
        raise RequestError(unknown_name(" ".join(names), list(needing), f"{_INSTALL} "))
    terminal, store = Terminal(), Store(cache)
    for path in (cache, store.environments):
        require_place(path, "cache_dir")
    requirements = needing[names[0]]
    with terminal.busy(f"pip installs {', '.join(requirements)}"):
        made = interpreters.install(store.environments, requirements, cache / "install.log")
    terminal.line(f"{names[0]} has its Python environment: {made.interpreter}, {len(made.locked)} distributions")
    return ExitCode.OK


def _row(node: NodeReport) -> tuple[str, str, str, str]:
    lacking = "; ".join(f"without {label}: {why}" for label, why in node.left_out.items())
    return node.name, node.device, str(node.cpus), f"no: {node.refusal}" if node.refusal else lacking or "yes"
