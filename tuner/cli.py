"""The command. `--help` answers before anything is imported."""

import importlib
import sys
from collections.abc import Sequence

HELP = """\
tune finds the fastest deployable artifact of a model within latency and accuracy limits, on this hardware.

  tune target=cpu latency_ms=5                     search, decide, package (the default command)
  tune model=onnx model.path=net.onnx dataset.path=eval.npz latency_ms=5
  tune model=torch model.factory=package.module:function dataset.path=eval.npz latency_ms=5
  tune -m model=digits_cnn,digits_resnet18 latency_ms=2,5   a sweep: a study for every combination
  tune sweep=nightly                               the sweep in conf/sweep/nightly.yaml
  tune schedule add nightly --cron "0 2 * * *" [--timezone …] [--timeout-hours 8] [--grace-minutes 5] -- sweep=nightly
  tune schedule run                                starts what is due, until Ctrl-C or SIGTERM
  tune schedule list | remove NAME | now NAME | history [NAME] [--json]
  tune schedule export systemd|cron|kubernetes|airflow NAME [--image …]   what those engines run instead
  tune schedule … --state-dir DIR                  where schedules and their history are kept
  tune inspect model.path=net.onnx                 what a model is, and which backends and transforms take it
  tune doctor [target=…] [--install NAME]          what this machine can tune for; what is missing, why, and getting it
  tune show [study=…] [--json]                     the verdict of a study again (the latest one)
  tune ui [--open]                                 MLflow's UI on the store in use, and where to look in it
  tune serve ARTIFACT|models:/NAME@champion|study=NAME [--port 8000] [--latency-ms L]   it answers over HTTP
  tune bench http://HOST:PORT/v2/models/NAME rate=R|find [latency_ms=L]   how it answers at a rate, or which it holds
  tune promote [NAME] [version=N] [reason=…]       make a registered version (the candidate) the champion
  tune rollback [NAME] [reason=…]                  make the champion before this one champion again
  tune upgrade NAME|ARTIFACT onnxruntime==1.32.0   does the champion gain or lose with another version of its library?
  tune export ARTIFACT|models:/NAME@champion|study=NAME --format F [--out DIR] [--rate R] [--latency-ms L]
                                                   files for triton, docker, kubernetes, kserve, openvino-model-server
                                                   or plain Python; how many replicas hold a rate
  tune split target=EDGE target.cloud=CLOUD link.mbit_s=R link.rtt_ms=T [cuts=4] …   all of a model on the edge, all in
                                                   the cloud, or cut in two: which answers a request soonest
  tune cache [max_gb=…] [max_age_days=…]           what built stages take on disk; with a limit, trims them
  tune cache export-tuning-records | import-tuning-records FILE   what backends found out by tuning, for another machine
  tune … --cfg                                     the configuration of one study, unchecked, and nothing else

keys (all in conf/config.yaml; every one can be overridden as key=value)
  target          cpu, a10, a100, b200, h100, h200, l4, l40s, t4, rtx4090, jetson_orin, mi300x, tpu_v5e, intel_npu,
                  snapdragon, graviton3, raspberry_pi5, board; target.threads=1 and so on set its fields
  model           digits_cnn, digits_resnet18, torch, onnx, sklearn, transformers, timm, keras, tflite, minilm,
                  efficientnet_lite0
  dataset         digits, digits_distorted, npz, csv, parquet, jsonl, huggingface, image_folder, function, texts,
                  random, docstrings, photographs
  search_space    default, quick, careful, compilers, gpu   what is combined with what
  latency_ms      limit on one call with a whole batch, at latency_percentile (95)
  accuracy_drop   limit on what is lost against the float model (0.01)
  size_mb, memory_mb                               further limits
  objective       throughput, latency, size_mb
  n_trials, timeout_s, patience                    how long to look (timing the untuned rivals and the final race come
                                                   on top); stop_when_feasible=true: no longer than needed
  sampler         auto, gp, tpe, nsga2, random, brute
  warm_start      false: not from the best of earlier studies
  scenario        SingleStream, Offline, Server    metric, metric_output, seed
  trial.timeout_s, .memory_mb, .measure_s          of one trial
  executor        local, ray, inline               where trials are evaluated; executor.address=… of a Ray cluster
  out_dir, study, cache_dir                        where things go
  tracking        sqlite, server, postgres         tracking.uri=… is the address
  install         ask, auto                        auto has pip make the Python environments that plugins need
  compile_only    true: for a device that is not here; nothing is measured
  promote         ask, auto                        auto makes the better of the two champions the registered one
  watch           examine the registered champion first (false); on_regression=COMMAND is run if it has regressed

exit codes: 0 a feasible champion; 3 nothing feasible, the nearest miss is shown; 4 the watched champion has regressed;
2 the request is wrong; 130 interrupted, the same command continues; 1 a bug. A sweep: 0 all members found a champion,
5 some, 3 none, 1 all failed, 4 one reported a regression.
"""


COMMANDS = (
    "bench",
    "cache",
    "doctor",
    "export",
    "inspect",
    "promote",
    "rollback",
    "schedule",
    "search",
    "serve",
    "show",
    "split",
    "ui",
    "upgrade",
)
"""The files of `tuner/commands`, each with a function `run`; without a command it is `search`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(HELP)
        return 0
    if arguments == ["--version"]:
        from tuner import __version__

        sys.stdout.write(f"inference-tuner {__version__}\n")
        return 0
    from tuner.errors import ExitCode, RequestError
    from tuner.system.secret import masked

    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "search"
    try:
        return int(importlib.import_module(f"tuner.commands.{name}").run(arguments))
    except RequestError as error:
        sys.stderr.write(masked(f"tune: {error}\n"))
        return ExitCode.WRONG_REQUEST
    except KeyboardInterrupt:
        sys.stderr.write("tune: interrupted\n")
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
