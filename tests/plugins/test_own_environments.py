"""Backends whose libraries fit nobody else's, where their environment is kept: pip would download gigabytes."""

from pathlib import Path

import pytest

from tests import study
from tests.keras_files import KEPT
from tuner.catalog import members
from tuner.errors import CandidateError
from tuner.plugin import Backend
from tuner.system.launcher import Launcher, install_name

OWN = [kind for kind in members(Backend) if kind.requirements]


def test_there_are_some_and_their_requirements_are_exact() -> None:
    assert len(OWN) >= 2
    assert all("==" in requirement for kind in OWN for requirement in kind.requirements)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OWN, ids=install_name)
def test_it_keeps_the_contract(kind: type[Backend], tmp_path: Path) -> None:
    variables = {"OWN": install_name(kind), "OMP_NUM_THREADS": "1"}
    try:
        launcher = Launcher(6000.0, variables, KEPT).with_libraries_of(kind())
    except CandidateError as error:
        pytest.skip(error.sentence)
    file = study.ROOT / "tests/plugins/own_environment.py"
    log = tmp_path / "log"
    with launcher.open(log) as worker:
        code = worker.run_for(240, pytest.main, ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)])
    assert code == 0, log.read_text()[-4000:]
