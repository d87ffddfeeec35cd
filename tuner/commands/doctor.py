"""`tune doctor`: what this machine can tune for, and what is missing and why."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from tuner import catalog
from tuner.build.available import unavailable
from tuner.build.store import Store
from tuner.device import Device
from tuner.errors import ExitCode, RequestError
from tuner.plugin import Backend
from tuner.report.terminal import Terminal
from tuner.request import compose
from tuner.system.launcher import Launcher
from tuner.system.machine import cpu_name


def run(arguments: Sequence[str]) -> ExitCode:
    """Checks the target and every plugin of the space; OK where a study could start."""
    terminal = Terminal()
    request = compose.request(arguments)
    memory_gb = psutil.virtual_memory().total / 1e9
    disk_gb = shutil.disk_usage(Path.home()).free / 1e9
    terminal.line(f"cpu      {cpu_name()}, {request.target.cores} threads for a session")
    for device in (hardware() for hardware in catalog.members(Device) if not hardware.host):
        terminal.line(f"{device.name:<8} {', '.join(device.found()) or device.absence()}")
    terminal.line(f"memory   {memory_gb:.0f} GB, disk {disk_gb:.0f} GB free")
    try:
        terminal.line(f"target   {request.target.name}: {request.target.check()}")
    except RequestError as error:
        terminal.line(f"target   {error}", bad=True)
        return ExitCode.WRONG_REQUEST
    plugins = request.space.plugins
    with tempfile.TemporaryDirectory() as scratch, terminal.busy("asking every plugin"):
        environments = Store(request.cache_dir).environments
        launcher = Launcher(request.limits.memory_mb, request.target.environment, environments)
        reasons = unavailable(plugins, request.target, Store(Path(scratch)), launcher, Path(scratch) / "log")
    kinds = ["backend" if isinstance(plugin, Backend) else "transform" for plugin in plugins]
    rows = [(kind, plugin.label, reasons.get(plugin, "yes")) for kind, plugin in zip(kinds, plugins, strict=True)]
    terminal.table(("kind", "plugin", "can run here"), rows)
    runs = any(isinstance(plugin, Backend) and plugin not in reasons for plugin in plugins)
    return ExitCode.OK if runs else ExitCode.WRONG_REQUEST
