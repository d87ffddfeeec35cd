"""Which plugins can work here, and which candidates a model can become."""

import hashlib
import inspect
import sys
from dataclasses import asdict
from pathlib import Path

from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.errors import CandidateError, RequestError
from tuner.plugin import Plugin, encode
from tuner.system.environment import library_versions
from tuner.system.worker import Worker
from tuner.target import Target
from tuner.workload import Form


def route(form: Form, candidate: Candidate) -> str | None:
    """Why the candidate cannot start from a model of that form, in one line; None where it can."""
    for transform in candidate.transforms:
        if not _reaches(form, (transform.takes,)):
            return f"{transform.label} needs the model as {transform.takes}, and has it as {form}"
        form = transform.gives
    if not _reaches(form, candidate.backend.accepts):
        return f"{candidate.backend.label} takes {' or '.join(candidate.backend.accepts)}, not {form}"
    return None


def plugin_version(plugin: Plugin) -> dict[str, str]:
    """What besides its parameters decides what a plugin does: its libraries and its own file."""
    source = inspect.getsourcefile(type(plugin))
    code = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else "unknown"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"file": code, "python": python, **library_versions(set(plugin.libraries))}


def unavailable(plugins: list[Plugin], target: Target, store: Store, log: Path) -> dict[Plugin, str]:
    """Which plugins cannot work for the target on this machine, and why. Answers are remembered only when good."""
    reasons = {}
    for plugin in plugins:
        if (reason := plugin.elsewhere(target)) is not None:
            reasons[plugin] = reason
            continue
        key = {"plugin": encode(plugin), "code": plugin_version(plugin), "target": asdict(target)}

        def ask(out: Path, plugin: Plugin = plugin) -> None:
            try:
                with Worker(log, memory_mb=4096, environment=target.environment) as worker:
                    reason = worker.run_for(120, plugin.unavailable, target)
            except CandidateError as error:
                reason = f"asked whether it can run, it failed: {error.sentence}"
            if reason:
                raise RequestError(reason)

        try:
            store.make("available", key, ask)
        except RequestError as error:
            reasons[plugin] = str(error)
    return reasons


def _reaches(form: Form, accepted: tuple[Form, ...]) -> bool:
    return form in accepted or (form == "torch" and "onnx" in accepted)
