"""A heavy library is imported late, and in few places."""

import ast
from pathlib import Path

from tests import study

# module of the engine -> where it may be imported at all, and whether at the top of the file
ENGINE = {
    "torch": ["forms/torch*.py", "search/samplers.py"],
    "optuna": ["search/*.py"],
    "mlflow": ["tracking/*.py", "deploy/*.py"],
    "onnx": ["forms/onnx*.py"],
    "onnxruntime": ["forms/onnx*.py"],  # where a graph's batch is, is tried
    "openvino": [],
    "nncf": [],
    "ray": ["executors/ray_driver.py"],
    "tvm": [],
    "torch_pruning": [],
}
AT_THE_TOP = {"optuna": ENGINE["optuna"], "mlflow": ENGINE["mlflow"], "torch": ["models/digits_networks.py"]}
MOST_PLUGINS = 4  # torch aside, files of plugins that import the same library


def _imports(path: Path) -> list[tuple[str, bool]]:
    """The libraries that a file imports, each with whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else names
        found += [(name.partition(".")[0], id(node) not in lazy) for name in names]
    return found


def test_it_is_imported_late_and_in_few_places() -> None:
    engine = sorted(path for path in (study.ROOT / "tuner").rglob("*.py") if path.parent.name != "testing")
    extensions = sorted((study.ROOT / "plugins").rglob("*.py"))
    places: dict[str, set[Path]] = {}
    for path in [*engine, *extensions]:
        for library, eager in _imports(path):
            if library not in ENGINE:
                continue
            assert not eager or any(path.match(p) for p in AT_THE_TOP.get(library, [])), f"{path}: {library} at the top"
            if path in engine:
                assert any(path.match(p) for p in ENGINE[library]), f"{path} imports {library}"
            else:
                places.setdefault(library, set()).add(path)
    crowded = {library: paths for library, paths in places.items() if len(paths) > MOST_PLUGINS and library != "torch"}
    assert not crowded
