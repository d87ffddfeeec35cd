"""`tune doctor`: what this machine can tune for, and what is missing and why."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import rich.console
from rich.table import Table

from tuner import catalog
from tuner.build.available import unavailable
from tuner.build.store import Store
from tuner.device import Device
from tuner.errors import RequestError
from tuner.plugin import Backend
from tuner.request import compose
from tuner.system.launcher import Launcher
from tuner.system.machine import cpu_name


def doctor(arguments: Sequence[str]) -> int:
    """Checks the target and every plugin of the space; 0 where a study could start, else 2."""
    console = rich.console.Console(highlight=False)
    asked = compose.request(arguments)
    memory_gb = psutil.virtual_memory().total / 1e9
    disk_gb = shutil.disk_usage(Path.home()).free / 1e9
    console.print(f"cpu      {cpu_name()}, {asked.target.cores} threads for a session", markup=False)
    for device in (hardware() for hardware in catalog.members(Device) if not hardware.host):
        console.print(f"{device.name:<8} {', '.join(device.found()) or device.absence()}", markup=False)
    console.print(f"memory   {memory_gb:.0f} GB, disk {disk_gb:.0f} GB free")
    try:
        console.print(f"target   {asked.target.name}: {asked.target.check()}", markup=False)
    except RequestError as error:
        console.print(f"target   {error}", markup=False, soft_wrap=True, style="red")
        return 2
    plugins = asked.space.plugins
    with tempfile.TemporaryDirectory() as scratch, console.status("asking every plugin"):
        launcher = Launcher(asked.limits.memory_mb, asked.target.environment, Store(asked.cache_dir).environments)
        reasons = unavailable(plugins, asked.target, Store(Path(scratch)), launcher, Path(scratch) / "log")
    table = Table("kind", "plugin", "can run here", box=None, pad_edge=False)
    for plugin in plugins:
        kind = "backend" if isinstance(plugin, Backend) else "transform"
        table.add_row(kind, plugin.label, reasons.get(plugin, "yes"))
    console.print(table)
    runs = any(isinstance(plugin, Backend) and plugin not in reasons for plugin in plugins)
    return 0 if runs else 2
