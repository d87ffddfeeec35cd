"""What of a search space can run: with this model and these samples, on this machine."""

import itertools
from collections.abc import Callable, Mapping

from tuner.build.available import unavailable
from tuner.build.prepare import Prepared
from tuner.build.routes import conversions, obstacle
from tuner.build.store import Store
from tuner.errors import RequestError
from tuner.model import Model
from tuner.plugin import Backend, Plugin, Transform
from tuner.request.request import Request
from tuner.search.recipe import BATCH_SIZE, REPLICAS, Recipe
from tuner.search.space import Space
from tuner.system.launcher import Launcher


def require_fitting(request: Request, model: Model) -> None:
    """Raises RequestError where the space or the scenario is for no such model. Asked before anything is written."""
    if model.shapes and request.goal.scenario == "Server":
        raise RequestError("scenario=Server: with model.axes calls are timed as SingleStream or Offline")
    whole = [spec.name for spec in model.inputs if spec.batch_axis is None]
    if whole and request.goal.scenario == "Server" and max(request.space.counts(BATCH_SIZE)) > 1:
        raise RequestError(
            f"scenario=Server: input {whole[0]} is of a whole batch, so requests share no call: "
            "search_space.batch_size=1"
        )
    target, replicas = request.target, max(request.space.counts(REPLICAS))
    if target.hardware.far and "memory_mb" in request.goal.limits:
        raise RequestError(
            f"memory_mb: the memory that a process has on {target.hardware.kind} is not told; leave it out"
        )
    cores = target.most_replicas
    if replicas > cores:
        has = f"{cores} core{'s' * (cores > 1)} to share" if target.hardware.host else "no cores to share"
        raise RequestError(f"search_space.replicas={replicas}: target={target.name} has {has}; leave replicas out")
    if model.batch_size is not None and not request.space.at_batch(model.batch_size).recipes:
        raise RequestError(
            f"search_space.batch_size: {_only(model)}; search_space.batch_size={model.batch_size} tunes it so"
        )


def _only(model: Model) -> str:
    return f"the model takes batches of {model.batch_size} only ({model.fixed})"


def needed(request: Request) -> list[Plugin]:
    """The plugins that a study's trials may use: those of its space, and what no space names, the reference backends
    and the conversions on the way."""
    plugins = [*request.space.plugins]
    given = [plugin.gives for plugin in plugins if isinstance(plugin, Transform)]
    forms = dict.fromkeys([request.workload.model.form, *given])
    plugins += [request.reference[form.name] for form in forms if form.name in request.reference]
    accepted = {plugin.accepts for plugin in plugins if isinstance(plugin, Backend)}
    accepted |= {(plugin.takes,) for plugin in plugins if isinstance(plugin, Transform)}
    for form, wanted in itertools.product(forms, sorted(accepted, key=str)):
        plugins += conversions(form, wanted) or ()
    return list(dict.fromkeys(plugins))


def usable(
    request: Request, prepared: Prepared, store: Store, launcher: Launcher, say: Callable[[str], None]
) -> tuple[Space, dict[str, str]]:
    """The space less what this model, dataset or machine cannot do, and the reasons by plugin.

    Raises RequestError where nothing is left. Side effect: with `install=auto` the Python environments that plugins
    need are made, which `say` is told.
    """
    dropped = _without_samples(request.space, prepared) | _unchecked(request)
    if prepared.source.model.quantized:
        again = [p for p in request.space.plugins if isinstance(p, Transform) and p.quantizes]
        dropped |= dict.fromkeys(again, "the model is quantized already, and taken as it is")
    if request.install == "auto":
        dropped |= _not_installed([p for p in request.space.plugins if p not in dropped], request, store, launcher, say)
    plugins = [plugin for plugin in request.space.plugins if plugin not in dropped]
    log = store.root / "doctor.log"
    across = request.compile_only and not request.target.present
    dropped |= unavailable(plugins, request.target, store, launcher, log, across=across)
    reasons = {plugin.label: reason for plugin, reason in dropped.items()}
    space = request.space.without(set(dropped))
    recipes, unreachable = _reachable(space, prepared)
    reasons |= unreachable
    space = Space(recipes)
    model = prepared.source.model
    if recipes and model.batch_size is not None:
        reasons["every other batch size"] = _only(model)
        space = space.at_batch(model.batch_size)
    space = space.shared(request.target.most_replicas)
    if not space.recipes:
        listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
        raise RequestError(f"search_space: nothing in it can run here. {listed}")
    return space, reasons


def _without_samples(space: Space, prepared: Prepared) -> dict[Plugin, str]:
    """The plugins that learn from samples of a role that the dataset has none of."""
    roles = {plugin: getattr(plugin, "role", None) for plugin in space.plugins}
    lacking = {plugin: role for plugin, role in roles.items() if role is not None and not prepared.samples[role]}
    return {plugin: f"the dataset has no {role} samples" for plugin, role in lacking.items()}


def _not_installed(
    plugins: list[Plugin], request: Request, store: Store, launcher: Launcher, say: Callable[[str], None]
) -> dict[Plugin, str]:
    """The plugins whose environment was not there and cannot be made, and why."""
    reasons = {}
    for plugin in plugins:
        try:
            if plugin.elsewhere(request.target) is None:
                launcher.provide(plugin, store.root / "install.log", say)
        except RequestError as error:
            reasons[plugin] = str(error)
    return reasons


def _unchecked(request: Request) -> dict[Plugin, str]:
    """The transforms whose result no reference backend takes: nothing could tell its accuracy before it is compiled."""
    given = {plugin: plugin.gives.name for plugin in request.space.plugins if isinstance(plugin, Transform)}
    return {
        plugin: f"it gives the model as {form}, and no reference backend takes that: +reference.{form}._target_=…"
        for plugin, form in given.items()
        if form not in request.reference
    }


def _reachable(space: Space, prepared: Prepared) -> tuple[list[Recipe], Mapping[str, str]]:
    """The recipes that the model's form has a way to, and what is in the way of the others, by plugin."""
    low = {name: bounds.low for name, bounds in space.ranges.items()}
    recipes, reasons = [], {}
    for recipe in space.recipes.values():
        reason = obstacle(prepared.source.model.form, recipe.candidate(low))
        if reason is None:
            recipes.append(recipe)
        else:
            label, _, rest = reason.partition(" ")
            reasons[label] = rest
    return recipes, reasons
