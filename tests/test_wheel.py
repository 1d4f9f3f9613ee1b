"""The wheel: what it holds, and that it runs where it is all there is of raysearch."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from raysearch.policy import trivial_augment
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_it_says_what_it_needs_and_carries_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (metadata,) = [name for name in packed.namelist() if name.endswith("/METADATA")]
        fields = message_from_bytes(packed.read(metadata))
        licence = packed.read(metadata.replace("METADATA", "licenses/LICENSE"))
    assert fields["License-Expression"] == "Apache-2.0"
    assert licence == (ROOT / "LICENSE").read_bytes()
    needed = [line for line in fields.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition(">=")[0] for line in needed) == [
        "numpy",
        "pillow",
        "torch",
        "torchvision",
    ]


def test_what_is_installed_from_it_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    install = ["install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    trivial_augment().save(tmp_path / "policy.json")

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(target)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    load = "import raysearch; raysearch.load_policy('policy.json'); print(raysearch.__file__)"
    assert Path(run("-c", load).strip()).is_relative_to(target)
    assert "raysearch [KEY=VALUE ...]" in run("-m", "raysearch.run", "--help")
