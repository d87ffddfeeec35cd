"""How large the parts of the package may grow. A value's fields are no arguments of a constructor: they have names."""

import ast
import io
import tokenize
from collections.abc import Iterator

import pytest

from tests import study

FILE, FUNCTION, ARGUMENTS, METHODS = 300, 60, 6, 15
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("tuner", "plugins"):
        for file in sorted((study.ROOT / folder).rglob("*.py")):
            yield str(file.relative_to(study.ROOT)), file.read_text()


def oversized() -> Iterator[tuple[str, str]]:
    """What is over a limit, and how it is."""
    for name, text in sources():
        if (lines := len(text.splitlines())) > FILE:
            yield name, f"{lines} lines"
        told = {
            line
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in LAYOUT
            for line in range(token.start[0], token.end[0] + 1)
        }
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                methods = [member for member in node.body if isinstance(member, ast.FunctionDef)]
                if len(methods) > METHODS:
                    yield f"{name}: {node.name}", f"{len(methods)} methods"
                arguments = {m.name: len(m.args.args) + len(m.args.kwonlyargs) - 1 for m in methods}
                if arguments.get("__init__", 0) > ARGUMENTS:
                    yield f"{name}: {node.name}.__init__", f"{arguments['__init__']} arguments"
            elif isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = len(told.intersection(range(node.lineno, node.end_lineno + 1)))
                if lines > FUNCTION:
                    yield f"{name}: {node.name}", f"{lines} lines"


def test_nothing_is_over_its_limit() -> None:
    assert dict(oversized()) == {}


def test_tests_that_share_something_expensive_stay_together(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("loadgroup", False):
        pytest.skip("one process runs them all")
    grouped = {item.nodeid for item in request.session.items if item.get_closest_marker("xdist_group")}
    assert all("@" in nodeid for nodeid in grouped), "xdist has not seen the groups"
