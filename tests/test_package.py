"""What is installed: the files of the wheel and of the source archive, and what they ask for."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pyg_stkd

ROOT = Path(__file__).parents[1]
BUILD = (
    "import sys; from setuptools import build_meta as b; "
    "out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
)
pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="the source is not here"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel and the source archive, built from a copy of the tree."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    assert setuptools
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pyg_stkd", tree / "pyg_stkd", ignore=leave)
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=leave)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(out)],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pyg_stkd").rglob("*.py")}
    assert names == sources | {"pyg_stkd/py.typed"}


def test_the_wheel_is_for_every_machine(built: tuple[Path, Path]) -> None:
    assert built[0].name == f"pyg_stkd-{pyg_stkd.__version__}-py3-none-any.whl"
    assert built[0].stat().st_size < 1e6


def test_what_the_package_asks_for(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        place = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(wheel.read(place))
    asked = told.get_all("Requires-Dist") or []
    needed = {line.split(">")[0] for line in asked if "extra ==" not in line}
    assert needed == {"numpy", "torch", "torch-geometric"}
    assert {"all", "sparse", "export", "serve"} <= set(told.get_all("Provides-Extra") or [])
    assert told["License-Expression"] == "MIT"
    assert str(told.get_payload()).startswith("# pyg_stkd")


def test_the_source_archive_can_be_built_and_tested(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pyg_stkd").rglob("*.py")}
    assert sources | {"pyproject.toml", "README.md", "LICENSE", "pyg_stkd/py.typed"} <= names
