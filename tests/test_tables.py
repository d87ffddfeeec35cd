"""What plugins found out while they worked is there for whoever reviews a study."""

import html
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tests import study
from tests.conftest import furnished
from tests.study import literal, node
from tuner import artifact
from tuner.build.builder import Builder, Source
from tuner.build.store import Store
from tuner.candidate import Candidate
from tuner.forms.onnx import ONNX
from tuner.measurement import Measurement
from tuner.model import Model
from tuner.result import StudyFolder
from tuner.system.deadline import Deadline
from tuner.system.launcher import Launcher
from tuner.tables import TABLES, Table, read_tables
from tuner.target import Target
from tuner.tensors import Shape
from tuner.testing.fakes import CENTRES, INPUTS, Itemised, Null, Points, Rounding, Telling, write_linear
from tuner.trial import Outcome

ROUNDED = Table("What was rounded", ("input", "most", "least"), tuple((f"x{i}", 0.0, None) for i in range(4)))
COMPILED = Table("What was compiled", ("operator", "samples", "ms"), (("MatMul", 4, 1.0),) * 20)


@pytest.fixture(scope="module")
def told(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose champion's plugins tell, the transform's table having gone through another transform."""
    folder = furnished(tmp_path_factory.mktemp("told"), shared)
    both = {"first": node(Itemised), "then": node(Rounding, decimals=2), "backend": node(Telling, ms=1.0)}
    deploy = [both, {"backend": node(Null)}]
    asked = ("latency_ms=20", "search_space.batch_size=[4]", f"search_space.deploy={literal(deploy)}")
    assert study.tune(folder, *asked) == 0
    return folder


def test_result_and_artifact_have_the_champions_tables(told: Path) -> None:
    folder = StudyFolder(told / "out/linear-cpu-001")
    assert list(folder.read_result().tables) == [COMPILED, ROUNDED]
    assert study.result(told)["tables"]["compiled"]["data"][0] == ["MatMul", 4, 1.0]
    assert read_tables(folder.champion / TABLES) == [COMPILED, ROUNDED]
    assert not list((folder.champion / artifact.FILES).rglob("*.table.json")), "files are what the runtime needs"


def test_the_report_shows_them_and_folds_long_ones(told: Path) -> None:
    page = html.unescape((told / "out/linear-cpu-001/report.html").read_text())
    assert re.search(r"<summary>What was compiled \(20 rows\)</summary>.*?<td [^>]*>MatMul</td>", page, re.DOTALL)
    (shown,) = re.findall(r"<p><b>What was rounded</b></p>.*?</table>", page, re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells[:3] == ["x0", "0", "–"], "what is not known has a dash"


def test_mlflow_has_them_in_the_trials_run(told: Path) -> None:
    _, children = study.runs(told)
    client = MlflowClient(tracking_uri=f"sqlite:///{told / 'out/mlflow.db'}")
    found = {
        run.info.run_name: [file.path for file in client.list_artifacts(run.info.run_id, TABLES)] for run in children
    }
    (telling,) = [run for run in children if "telling" in run.info.run_name]
    assert found.pop(telling.info.run_name) == ["tables/compiled.json", "tables/rounded.json"]
    assert not any(found.values())
    assert {each["type"] for each in json.loads(telling.data.tags["mlflow.loggedArtifacts"])} == {"table"}
    text = Path(client.download_artifacts(telling.info.run_id, "tables/rounded.json")).read_text()
    assert Table.from_json(json.loads(text)) == ROUNDED


def test_each_length_that_is_compiled_for_itself_has_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_linear(folder, CENTRES.T)
    shapes = (Shape(INPUTS), Shape(INPUTS))
    source = Source(Model(ONNX, folder, INPUTS, "a model", shapes=shapes), Points())
    store, target = Store(tmp_path / "store"), Target("cpu", "cpu", threads=1)
    builder = Builder(source, target, store, Launcher(4096), tmp_path / "log", {})
    built = builder.compiled(Candidate((Itemised(),), Telling(), 1), Deadline(60))
    assert [table.name for table in read_tables(built / TABLES)] == ["compiled-0", "compiled-1", "rounded"]


def test_a_later_table_of_the_same_name_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_linear(folder, CENTRES.T + 0.04)
    source = Source(Model(ONNX, folder, INPUTS, "a model"), Points())
    store, target = Store(tmp_path / "store"), Target("cpu", "cpu", threads=1)
    builder = Builder(source, target, store, Launcher(4096), tmp_path / "log", {})
    model = builder.transformed((Itemised(1), Itemised(0)), Deadline(60))
    (table,) = read_tables(model.directory)
    assert all(row[1] == 0 for row in table.rows), "the second rounding changed nothing"


def test_an_outcome_takes_them_across_processes_and_into_the_journal() -> None:
    table = Table("What was found", ("layer", "bits"), (("conv", 8), ("head", None)), "found")
    outcome = Outcome(Candidate((), Null(), 1), "complete", Measurement(), tables=(table,))
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    written = json.loads(json.dumps(outcome.to_json()))
    again = Outcome.from_json(written)
    assert again == outcome and again.tables[0].name == "found"
    del written["tables"]  # as it was before there were tables
    assert Outcome.from_json(written).tables == ()


@pytest.mark.parametrize(
    ("rows", "error"),
    [((("a",),), ValueError), ((("a", float("nan")),), ValueError), ((("a", np.int64(1)),), TypeError)],
)
def test_what_is_no_table_is_refused(tmp_path: Path, rows: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Table("What was found", ("layer", "bits"), rows).write(tmp_path, "found")
    assert read_tables(tmp_path) == read_tables(tmp_path / "nowhere") == []
