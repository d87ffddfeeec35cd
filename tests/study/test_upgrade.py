"""A champion races itself, rebuilt in an environment with another version of its library."""

import json
import platform
import zipfile
from pathlib import Path

import pytest

from tests import study
from tests.fakes import Paced
from tuner.cli import main
from tuner.study.upgrade import surely

VERSIONS = {"1.0": "MS = 2.0", "2.0": "MS = 4.0", "2.1": "MS = 2.0", "2.2": "raise ImportError('no such symbol')",
            "2.3": "raise MemoryError('of this machine')"}  # fmt: skip


def wheels(folder: Path) -> Path:
    """A folder from which pip can install each version of tiny-runtime."""
    folder.mkdir()
    for version, code in VERSIONS.items():
        about = f"tiny_runtime-{version}.dist-info"
        with zipfile.ZipFile(folder / f"tiny_runtime-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_runtime.py", f"{code}\n")
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny-runtime\nVersion: {version}\n")
            wheel.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{about}/RECORD", "")
    return folder


def test_a_difference_of_rounding_is_neither_better_nor_worse_however_sure_it_is() -> None:
    assert [surely(lost, 0.9) for lost in ((1e-7, 2e-7), (-2e-7, -1e-7), (-0.1, 0.1))] == [0, 0, 0]
    assert [surely(lost, 0.9) for lost in ((0.001, 0.1), (-0.1, -0.001))] == [1, -1]


@pytest.mark.slow
def test_the_verdict_is_of_the_other_version(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels(place / "wheels")))
    # whose size is the same with any version
    settings = ("search_space.batch_size=[4]", "install=auto", "promote=auto", "objective=size_mb")
    assert study.tune(place, study.deploy(study.node(Paced)), *settings) == 0
    champion = str(place / "out/linear-cpu-001/champion")

    def upgraded(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["upgrade", *arguments])
        return code, *capsys.readouterr()

    code, said, _ = upgraded("linear-cpu", "tiny-runtime==2.0", f"out_dir={place / 'out'}")
    assert code == 4
    assert said.startswith("linear-cpu version 1 with tiny-runtime==2.0: worse\n  tiny-runtime 1.0 → 2.0\n  0.50× its")
    assert "accuracy " in said
    code, said, _ = upgraded(champion, "tiny-runtime==2.1")
    assert (code, said.splitlines()[0]) == (0, f"{champion} with tiny-runtime==2.1: the same within noise")
    code, said, _ = upgraded(champion, "tiny-runtime==2.2")
    assert (code, said.splitlines()[0]) == (4, f"{champion} with tiny-runtime==2.2: does not load")
    assert "no such symbol" in said
    code, _, refusal = upgraded(champion, "tiny-runtime==2.3")
    assert (code, "MemoryError: of this machine; that says nothing of the version" in refusal) == (2, True)
    (place / "file").write_text("")
    code, _, refusal = upgraded(champion, "tiny-runtime==2.1", f"cache_dir={place / 'file'}")
    assert (code, refusal.startswith(f"tune: cache_dir={place / 'file'}: cannot be written")) == (2, True)
    manifest, result = Path(champion, "manifest.json"), Path(champion).parent / "result.json"
    made = manifest.read_text()
    value = json.loads(made)
    manifest.write_text(json.dumps(value | {"versions": value["versions"] | {"python": "3.1"}}))
    code, said, _ = upgraded(champion, "tiny-runtime==2.2")
    assert f"  made with python 3.1, compared with {platform.python_version()}\n" in said
    manifest.write_text(made)
    found = result.read_text()
    result.write_text(found.replace(json.loads(found)["content"]["data"], "others"))
    code, _, refusal = upgraded(champion, "tiny-runtime==2.2")
    assert (code, "these samples, or how they are read, are not those by which" in refusal) == (2, True)
    result.write_text(found)
    code, _, refusal = upgraded(champion, "tiny-runtime==1.0")
    assert (code, refusal) == (2, "tune: tiny-runtime==1.0: it has 1.0 already; name another version\n")
    code, _, refusal = upgraded(champion, "tvm==1")
    assert (code, refusal) == (2, "tune: tvm==1: paced · b4 is not made with it, but with tiny-runtime\n")
    code, _, refusal = upgraded(champion, "tiny-runtime==9")
    assert (code, "No matching distribution found for tiny-runtime==9" in refusal) == (2, True)


def test_a_version_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", str(tmp_path), "onnxruntime"]) == 2
    assert "tune upgrade NAME onnxruntime==1.32.0" in capsys.readouterr().err
