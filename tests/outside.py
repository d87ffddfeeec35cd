"""A distribution of plugins that is not the tuner's own, as pip would have installed it."""

from pathlib import Path


def install(folder: Path, name: str, text: str) -> None:
    """Puts a distribution with the one module `name` into the folder, which is to be on the import path."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[tuner.plugins]\n{name} = {name}\n")
