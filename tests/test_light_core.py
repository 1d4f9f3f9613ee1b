"""Using a finished policy needs four packages, little time, and nothing of `torch.compile`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raysearch.errors import RaysearchError, not_installed
from raysearch.policy import Policy, PolicyTransform, from_json
from tests.conftest import ROOT
from tests.test_policy_files import WRITTEN, document

SECONDS = 0.3  # of the CPU, for importing raysearch and loading a policy

ALONE = '''
import importlib, importlib.abc, sys

OURS = {"raysearch", "torch", "torchvision", "numpy", "PIL"}
TORCHS = {  # what it imports itself
    "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "filelock", "networkx",
    "jinja2", "markupsafe", "fsspec", "triton", "nvidia", "cuda",
}

class Only(importlib.abc.MetaPathFinder):
    """Finds the above and the standard library; nothing else is there."""

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        known = name.startswith("_sysconfigdata")  # the standard library's, named by the platform
        if known or name.partition(".")[0] in OURS | TORCHS | set(sys.stdlib_module_names):
            specs = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in specs if spec is not None), None)

sys.meta_path[:] = [Only(list(sys.meta_path))]
import PIL.Image, torch
import raysearch
from raysearch.errors import RaysearchError
from raysearch.policy import OperationPolicy

def refusal(action, *arguments):
    try:
        action(*arguments)
    except RaysearchError as error:
        return str(error)

for path in sys.argv[1:]:
    transform = raysearch.load_policy(path)
    if isinstance(transform.policy, OperationPolicy):
        assert len(transform.policy.sample(5)) == 5
    assert transform.policy.describe()
    for mode in ("L", "RGB"):
        picture = PIL.Image.new(mode, (9, 7), "gray")
        assert (transform(picture).mode, transform(picture).size) == (mode, (9, 7))
    images = torch.randint(256, (4, 3, 7, 9), dtype=torch.uint8)
    assert transform(images).shape == transform(images / 255).shape == images.shape
print(*sorted(name for name in sys.modules if name.startswith("raysearch.")))
said = refusal(transform.policy.draw, "policy.png")
assert said.startswith("drawing a policy needs "), said
assert 'pip install "raysearch[search]"' in said, said
for name in ("load_network", "search", "compare"):
    said = refusal(lambda: getattr(raysearch, name))
    assert said.startswith(f"raysearch.{name} needs "), said
    assert 'pip install "raysearch[search]"' in said, said
for program in ("run", "compare"):
    assert importlib.import_module(f"raysearch.{program}").main(["--help"]) == 2
'''

LAZY = """
import sys
import raysearch
assert {"search", "compare"} <= set(dir(raysearch))
print(*sys.modules)
print(raysearch.compare.__module__, raysearch.search.__module__)
"""

TIMED = """
import sys, time
import torch, torchvision
start = time.process_time()
import raysearch
raysearch.load_policy(sys.argv[1])
print(time.process_time() - start)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """A policy file of every kind."""
    for kind in WRITTEN:
        (tmp_path / f"{kind}.json").write_text(json.dumps(document(kind)))
    return [str(tmp_path / f"{kind}.json") for kind in WRITTEN]


def test_a_policy_of_every_kind_needs_four_packages_alone(paths: list[str]) -> None:
    done = python(ALONE, *paths)
    parts = {name.split(".")[1] for name in done.stdout.splitlines()[0].split()}
    assert parts == {"policy", "ops", "errors", "files", "credentials", "machine"}
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line, program in zip(lines, ("raysearch.run", "raysearch.compare"), strict=True):
        assert line.startswith(f"error: {program} needs ")
        assert 'pip install "raysearch[search]"' in line


def test_what_is_missing_of_raysearch_itself_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        not_installed("a part", ModuleNotFoundError("no", name="raysearch.part"))


def test_nothing_is_imported_before_it_is_used() -> None:
    before, after = python(LAZY).stdout.splitlines()
    assert not {"torch", "ray", "pydantic", "pandas"} & set(before.split())
    assert set(after.split()) == {"raysearch.experiment._api"}


def test_importing_and_loading_take_little_beyond_torch(paths: list[str]) -> None:
    assert float(python(TIMED, paths[0]).stdout) < SECONDS


# Compilers.


class Augmented(nn.Module):
    """A network that augments its images; with a policy as it is, or with its transform."""

    def __init__(self, augment: Policy | PolicyTransform) -> None:
        super().__init__()
        self.augment = augment
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.augment(images * 0.5) + 1)


@pytest.fixture
def images() -> Iterator[Tensor]:
    yield torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.compiler.reset()


def check_compiled(module: nn.Module, images: Tensor, backend: str) -> None:
    compiled = torch.compile(module, backend=backend)
    torch.manual_seed(5)
    results = [compiled(images) for _ in range(3)]
    torch.manual_seed(5)
    for result in results:
        torch.testing.assert_close(result, module(images))
    assert not torch.equal(results[0], results[1])


@pytest.mark.parametrize("kind", WRITTEN)
def test_compiled_networks_draw_anew_in_every_call(kind: str, images: Tensor) -> None:
    policy = from_json(document(kind))
    for augment in (policy, PolicyTransform(policy)):
        check_compiled(Augmented(augment), images, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_inductor_compiles_what_is_about_a_policy(images: Tensor) -> None:
    transform = PolicyTransform(from_json(document("random_operations")))
    check_compiled(Augmented(transform), images, "inductor")
    check_compiled(transform, images, "inductor")


def test_scripting_says_what_to_do_instead() -> None:
    policy = from_json(document("pairs"))
    transform = PolicyTransform(policy)
    for module in (policy, transform, nn.Sequential(transform, nn.Flatten())):
        with pytest.raises(RaysearchError, match=r"script on the network alone .* before it"):
            torch.jit.script(module)
