"""What no grammar of a request lets through: one sentence, nothing written, whatever the mistake."""

import json
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.study import Refused, literal
from tuner.errors import RequestError
from tuner.request import compose, reading
from tuner.request.members import members
from tuner.request.schema import keys
from tuner.search.space import Space

NO_STUDY = "target.threads=4096"  # what is taken is refused for this
GROUPS = ["search_space", "target", "model", "dataset", "tracking", "sampler", "task"]


def sentence(*overrides: str) -> str:
    """The one with which they are refused."""
    with pytest.raises(RequestError) as refusal:
        compose.request(overrides).target.check()
    told = str(refusal.value)
    assert told.strip() and "\n" not in told and "Traceback" not in told
    return told


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} <= set(GROUPS) | {"sweep"}


# --- YAML


TORN = {
    "a: [1, 2": "line 1",
    "a:\n\tb: 1": "line 2",
    "a: 1\na: 2": "line 2: found duplicate key a",
    "a: !!python/object:os.system x": "line 1",
    "\0": "mine",
    "5": "mine",
    "a: &x\n  b: *x": "mine",
    "a: ${oc.env:NOT_SET}": "NOT_SET",
    "a: ${nope:1}": "nope",
    "a: ${.b}\nb: ${.a}": "Recursive",
    "a: ${no.such}": "no.such",
}


@pytest.mark.parametrize("kind", ["search_space", "dataset"])
@pytest.mark.parametrize("text", TORN)
def test_a_file_of_yaml_that_cannot_be_read_is_named(kind: str, text: str, group: Path) -> None:
    (group / kind).mkdir()
    (group / kind / "mine.yaml").write_text(text)
    told = sentence(f"hydra.searchpath=[file://{group}]", f"{kind}=mine", NO_STUDY)
    assert TORN[text] in told and kind in told


def test_a_binary_file_is_named_by_its_override(group: Path) -> None:
    (group / "search_space").mkdir()
    (group / "search_space/mine.yaml").write_bytes(b"\xff\xfe\0")
    assert "search_space=mine" in sentence(f"hydra.searchpath=[file://{group}]", "search_space=mine")


leaves = st.none() | st.booleans() | st.integers(-2, 10**12) | st.floats() | st.text(string.ascii_letters, max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*"abc", "_target_", "name"]), inner),
    max_leaves=8,
)


@given(kind=st.sampled_from(GROUPS), tree=trees)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_group_of_any_shape_is_taken_or_refused_in_a_sentence(kind: str, tree: object, group: Path) -> None:
    (group / kind).mkdir(exist_ok=True)
    (group / kind / "mine.yaml").write_text(json.dumps(tree))
    sentence(f"hydra.searchpath=[file://{group}]", f"{kind}=mine", NO_STUDY)


@pytest.mark.parametrize("text", ["a: [", "5", "- 1", "seed: [1]\nseed: 2", "seed: ${x}", "latency_ms: [fast]", "\0"])
def test_a_sweep_of_any_shape_is_refused_in_a_sentence(text: str, group: Path, refused: Refused) -> None:
    (group / "sweep").mkdir()
    (group / "sweep/mine.yaml").write_text(text)
    assert "no such choice" not in refused(f"hydra.searchpath=[file://{group}]", "sweep=mine")


# --- overrides


@pytest.mark.slow
@given(
    key=st.sampled_from(
        [*keys(), "tracking.uri", "tracking.experiment", "model.label", "trial.timeout_s", "hydra", ""]
    ),
    mark=st.sampled_from(["", "+", "++", "~"]),
    value=st.text("ab1=,[]{}():'\"$.~/ -", max_size=8) | leaves.map(literal),
)
@example("latency_ms", "", "[2,5]").via("told as 'a key'")
@settings(max_examples=25)
def test_an_override_of_any_form_is_taken_or_refused_in_a_sentence(key: str, mark: str, value: str) -> None:
    sentence(f"{mark}{key}={value}", NO_STUDY)


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("model.path=epoch=3-step=100.onnx", """once more for a shell: 'model.path="epoch=3"""),
        ("model.path=net (1).onnx", """'model.path="net (1).onnx"'"""),
        ("latency_ms=[2,5]", "latency_ms=[2, 5]: must be a number"),
        ("tracking=postgres", "tracking.uri must be given"),
        ("out_dir=${oc.env:NOT_SET}", "out_dir: KeyError raised while resolving interpolation"),
        ("~seed", "~seed: the key must stay"),
        ("target={name:x}", "target={name:x}: must be one of"),
        ("target.name=''", "target.name='' must be a name"),
        ("watch=5", "watch=5: must be true or false"),
        ("timeout_s=nan", "timeout_s=nan must be 1 or more"),
        ("n_trials=100000000000000000000000", "at most"),
        ("seed=5000000000", "at most"),
        ("model.label=\"a\x1b[31m\"", "model.label="),
        ("tracking.experiment=''", "tracking.experiment=''"),
        ("search_space.batch_size=100000", "from 1 to 65536"),
        ("search_space.batch_size={low:1,high:1000000000}", "from 1 to 65536"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_key_and_the_mend(override: str, mend: str) -> None:
    assert mend in sentence(override, NO_STUDY)


NAMES = ["..", ".", "", "-x", "a/b", "mlartifacts", "mlflow.db", "mlflow.db-wal", "optuna.journal", "x" * 300, "é" * 60]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_no_path_and_nothing_else_of_out_dir(name: str, refused: Refused) -> None:
    assert "study=" in refused(f"study='{name}'", NO_STUDY)


def test_a_study_takes_no_folder_that_is_somebody_elses(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "out/sweep-001").mkdir(parents=True)
    (tmp_path / "out/sweep-001/summary.json").write_text("{}")
    (tmp_path / "out/left").mkdir()
    (tmp_path / "out/left/.lock").write_text("")
    out_dir = f"out_dir={tmp_path / 'out'}"
    assert "study=sweep-001: out_dir keeps something else" in refused("study=sweep-001", out_dir, NO_STUDY)
    assert "target.threads" in refused("study=left", out_dir, NO_STUDY), "one that was cut short at once goes on"


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("hydra.searchpath=[file:///no/such]", "file:///no/such is no folder"),
        ("hydra.searchpath=[file://no_such]", "file://no_such is no folder"),
        ("hydra.searchpath=[no_such]", "no_such is no folder"),
        ("hydra.searchpath=[pkg://no.such]", "pkg://no.such is no package"),
        ("hydra.searchpath=[http://x]", "must begin with file:// or pkg://"),
        ("hydra.searchpath=conf", "must be a list of folders"),
        ("hydra.searchpath=[5]", "must be a list of folders"),
        ("hydra.run.dir=x", "hydra.run.dir=x: of Hydra's own keys only hydra.searchpath is taken"),
        ("+hydra.job.name=x", "only hydra.searchpath is taken"),
        ("hydra/launcher=basic", "only hydra.searchpath is taken"),
        ("~hydra.sweep", "only hydra.searchpath is taken"),
    ],
)
def test_hydras_own_keys_do_nothing_without_a_word(override: str, mend: str) -> None:
    assert mend in sentence(override, NO_STUDY)


# --- what would never end


REPEATED = {
    "anchors": ("*a{0}", "a{1}: &a{1} [{2}]"),
    "interpolations": ('"${{search_space.a{0}}}"', "a{1}: [{2}]"),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_a_few_lines_that_stand_for_more_than_any_memory_holds_are_refused(
    kind: str, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMIT_S", 1.0)
    once, line = REPEATED[kind]
    lines = [line.format("", n, ", ".join([once.format(n - 1)] * 9 if n else "x")) for n in range(10)]
    (group / "search_space").mkdir()
    (group / "search_space/laughs.yaml").write_text("\n".join(lines))
    told = sentence(f"hydra.searchpath=[file://{group}]", "search_space=laughs", NO_STUDY)
    assert "search_space=laughs" in told and "too large to be read" in told


@pytest.mark.parametrize(
    "choices",
    [
        "range(0,1000000)",
        "range(0,10,0)",
        "range(0,0)",
        "shuffle(range(0,1000000000))",
        "range(0,inf)",
        "range(0,1,1e-9)",
    ],
)
def test_a_sweep_without_end_is_refused_at_once(choices: str) -> None:
    with pytest.raises(RequestError, match="seed="):
        members([f"seed={choices}"])
    with pytest.raises(RequestError, match="the choices make 1,980 studies"):
        members(["seed=range(20)", "n_trials=range(1,100)"])


NULL = {"_target_": "tuner.testing.fakes.Null"}


def test_an_exponential_tree_is_refused_at_once() -> None:
    tree = {f"a{number}": [None] * 10 for number in range(12)} | {"batch_size": 1, "d": {"backend": NULL}}
    with pytest.raises(RequestError, match=r"1e\+12 combinations"):
        Space.parse(tree)


@given(st.integers(1, 10**9), st.sampled_from([{}, {"step": 7}, {"log": True}, {"factor": 2}]))
def test_a_range_of_any_length_is_read_at_once(length: int, kind: dict[str, object]) -> None:
    rounding = {"_target_": "tuner.testing.fakes.Rounding", "decimals": {"low": 1, "high": length, **kind}}
    space = Space.parse({"batch_size": {"low": 1, "high": 65536}, "round": rounding, "deploy": NULL})
    assert space.points() is None
    span = space.ranges["Rounding.decimals"]
    assert span.holds(span.low) and span.low <= span.middle <= span.high
