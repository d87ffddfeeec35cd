"""MetaSchedule's search: schedules are proposed for each task, built here and measured in processes of their own."""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuner.plugins.backends.tvm_lowering import foreign, processor
from tuner.plugins.backends.tvm_records import FAILED_S, costs_of
from tuner.plugins.devices.tvm_board import TvmBoard
from tuner.system.said import last_line
from tuner.target import Target

ROUND = 8  # schedules proposed, built and measured together; with fewer a task may end with no valid one
_NOT_REPLAYED = "parallel_for_dynamic"  # what MetaSchedule says then, and no reason
_MOST = 4  # times the average: as many a task may have where they go by gain
Strategy = Literal["evolutionary", "replay-trace"]
CostModel = Literal["xgb", "random"]
Budget = Literal["even", "gain"]


@dataclass(frozen=True)
class Effort:
    """How schedules are looked for, and how many for each task: on the average where the `budget` goes by gain."""

    trials_per_task: int
    seed: int
    strategy: Strategy
    cost_model: CostModel
    budget: Budget


def measure(tasks: Sequence[Any], database: Any, work: Path, target: Target, effort: Effort) -> list[str]:
    """Adds records until there are as many as `effort` wants, or the search spaces are spent. Returns the names of the
    tasks of which MetaSchedule died: it gives up on all where its evolution cannot replay the schedule of one, so those
    of such a group are tuned one by one, and that one keeps the schedules that it has."""
    tune, died = _tuner(database, work, target, effort), []
    costs = costs_of(database, tasks)
    for group, trials, most in portions(tasks, costs, effort):
        known = [len(of_it) for of_it in costs_of(database, group)]
        try:
            tune(group, trials, most)
        except RuntimeError as error:
            if _NOT_REPLAYED not in str(error):
                raise
            for task, before in zip(group, known, strict=True):
                now = [len(of_it) for of_it in costs_of(database, group)]
                left = min(before + most - now[group.index(task)], trials + sum(known) - sum(now))
                try:
                    if left > 0:
                        tune([task], left, left)
                except RuntimeError as error:
                    if _NOT_REPLAYED not in str(error):
                        raise
                    died.append(str(task.task_name))
    return died


def _tuner(database: Any, work: Path, target: Target, effort: Effort) -> Callable[[Sequence[Any], int, int], None]:
    """What tunes a group of tasks: with so many trials altogether, and at the most for each."""
    kind = processor(target)
    _register_intrinsics("cuda" if kind is None else "x86" if kind.startswith("x86") else "arm_cpu")
    from tvm.s_tir import meta_schedule as ms

    logger = logging.getLogger("tvm.s_tir.meta_schedule")
    logger.setLevel(logging.WARNING)
    config = ms.runner.EvaluatorConfig(number=1, repeat=1, min_repeat_ms=40)
    runner = _runner(target, config)
    model = _cost_model(effort, target.cores)
    builder = _builder(work / "build", "tar" if foreign(target) else "so")

    def tune(group: Sequence[Any], trials: int, most: int) -> None:
        contexts = [
            ms.TuneContext(
                mod=task.dispatched[0],
                target=task.target,
                space_generator="post-order-apply",
                search_strategy=_strategy(effort),
                task_name=task.task_name,
                logger=logger,
                rand_state=state,
                num_threads=target.cores,
            )
            for task, state in zip(group, ms.utils.fork_seed(effort.seed, n=len(group)), strict=True)
        ]
        ms.tune.tune_tasks(
            tasks=contexts,
            task_weights=[task.weight for task in group],
            work_dir=str(work),
            max_trials_global=trials,
            max_trials_per_task=most,
            num_trials_per_iter=ROUND,
            builder=builder,
            runner=runner,
            database=database,
            cost_model=model,
        )

    return tune


def portions(
    tasks: Sequence[Any], costs: Sequence[Sequence[float]], effort: Effort
) -> Iterator[tuple[list[Any], int, int]]:
    """Tasks to tune together, how many trials they have altogether (a last round may exceed it), how many each has at
    most. `costs` are the seconds of each task's records."""
    wanted, pairs = effort.trials_per_task, list(zip(tasks, costs, strict=True))
    left = wanted * len(tasks) - sum(map(len, costs))
    if effort.budget == "gain":
        wanted = ROUND if any(costs) else 0  # else MetaSchedule begins with a round of each by itself
    missing = [max(0, wanted - len(known)) for known in costs]
    for trials in sorted({*missing} - {0}, reverse=True):
        group = [task for task, count in zip(tasks, missing, strict=True) if count == trials]
        yield group, trials * len(group), trials
    if effort.budget == "gain" and (left := left - sum(missing)) > 0:
        # it begins with a round of each: where that is all there is, those have it that take longest
        pairs.sort(key=lambda pair: -pair[0].weight * min(pair[1], default=FAILED_S))
        yield [task for task, _ in pairs], left, _MOST * effort.trials_per_task


def _strategy(effort: Effort) -> Any:
    from tvm.s_tir.meta_schedule import search_strategy

    if effort.strategy == "replay-trace":
        return search_strategy.ReplayTrace()
    return search_strategy.EvolutionarySearch(population_size=64, genetic_num_iters=2)


def _cost_model(effort: Effort, cores: int) -> Any:
    from tvm.s_tir.meta_schedule import cost_model

    if effort.cost_model == "random" or effort.strategy == "replay-trace":  # which asks none
        return cost_model.RandomModel(seed=effort.seed)
    return cost_model.XGBModel(num_tuning_cores=cores, num_warmup_samples=2 * ROUND)


def _register_intrinsics(processor: str) -> None:
    """Loads the tensor intrinsics of one kind of processor: the package itself parses those of all for 9 to 18 s."""
    name = "tvm.s_tir.tensor_intrin"
    spec = importlib.util.find_spec(name)
    if name not in sys.modules and spec is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        importlib.import_module(f"{name}.{processor}")


def _runner(target: Target, config: Any) -> Any:
    """Where schedules are measured, in processes of their own: a crash there costs that schedule."""
    from tvm.s_tir import meta_schedule as ms

    if not isinstance(board := target.hardware, TvmBoard):
        return ms.runner.LocalRunner(timeout_sec=10, evaluator_config=config)
    host, port = board.address
    rpc = ms.runner.RPCConfig(tracker_host=host, tracker_port=port, tracker_key=board.key, session_timeout_sec=30)
    return ms.runner.RPCRunner(rpc_config=rpc, evaluator_config=config, max_workers=1)


def _builder(folder: Path, suffix: str) -> Any:
    """Builds in this process; MetaSchedule's LocalBuilder starts interpreters anew for every round."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build

    def build(module: Any, target: Any, place: Path) -> Any:
        place.mkdir(parents=True)
        try:
            library = default_build(module, target, None)
            library.export_library(str(place / f"schedule.{suffix}"), workspace_dir=str(place))
        except Exception as error:  # recorded as a failed measurement
            return BuilderResult(None, last_line(error))
        return BuilderResult(str(place / f"schedule.{suffix}"), None)

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        count = 0

        def build(self, build_inputs: list[Any]) -> list[Any]:
            self.count += 1
            place = folder / str(self.count)
            return [build(each.mod, each.target, place / str(i)) for i, each in enumerate(build_inputs)]

    return Builder()
