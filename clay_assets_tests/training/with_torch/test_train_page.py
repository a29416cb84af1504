"""The page on training: all its commands and programs run as written, in order, on fewer chips."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets_tests.chips.factories import S2, made_plan
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.oracle.environment import TESTS_SECONDS
from clay_assets_tests.training.made_scenes import KINDS, made_storage, of_platform

pytestmark = pytest.mark.timeout(TESTS_SECONDS)
PAGE = (REPOSITORY / "docs" / "train.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INSTALLATION = ("pip install",)
STEPS = {"100": "4", "200": "8", "220": "10"}  # on the page → in the test
EVERYWHERE = "--bbox=-180,-80,180,80"  # instead of a box in the demo
TRAIN_SEED = 3  # of a plan that puts this block in `train`


@dataclass
class Ran:
    """The output of the page's blocks, by their text."""

    folder: Path
    said: dict[str, str]

    def of(self, part: str) -> str:
        (found,) = [text for block, text in self.said.items() if part in block]
        return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("page")
    scenes = {key: of_platform(key, f"{key}_one", "2021-12-30T17:20:30.405Z") for key in KINDS}
    made = made_storage(folder, scenes, plan=made_plan(TRAIN_SEED))
    items = [scene.item for scene in made.scenes if scene.platform == S2]
    made.store.write(layout.table("scene_imagery", S2, 2021), encode_items(items, {}))
    (folder / "demo").mkdir()
    (folder / "demo" / "storage").symlink_to(made.storage)
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    names: dict[str, Any] = {}  # Python blocks share their state
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, block in BLOCKS:
            if block.startswith(INSTALLATION):
                continue
            if language == "sh":
                said[block] = ran(shortened(block))
            else:
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    exec(compile(block, "docs/train.md", "exec"), names)
                said[block] = output.getvalue()
    return Ran(folder, said)


def shortened(block: str) -> list[str]:
    command = shlex.split(block)
    command = [EVERYWHERE if argument.startswith("--bbox=") else argument for argument in command]
    if "--steps" in command:
        place = command.index("--steps") + 1
        command[place] = STEPS[command[place]]
        workers = "1" if command[place] == STEPS["200"] else "0"  # only one run has a worker, which is slow to start
        command += ["--batch-size", "2", "--workers", workers, "--every", "2"]
    return command


def ran(command: list[str]) -> str:
    """Output of a command of the page. Torchrun is a process, as are its ranks; scripts run here: see `of_script`."""
    program, *arguments = command
    if program == "python":
        return of_script(*arguments)
    assert program == "torchrun"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    launch = [sys.executable, "-m", "torch.distributed.run", *arguments]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def of_script(script: str, *arguments: str) -> str:
    """Output of a script, run as `__main__` in this process, as importing PyTorch takes longer than a few steps."""
    path = REPOSITORY / script
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.syspath_prepend(str(path.parent))
        patch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(path), run_name="__main__")
    return output.getvalue()


def steps_of(said: str) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+), epoch \d+: loss \d", said, re.MULTILINE)]


def test_it_trains_and_resumes_on_one_process_and_on_two(page: Ran) -> None:
    first, second, ranked = (page.of(f"--steps {steps}") for steps in STEPS)
    assert (steps_of(first), steps_of(second), steps_of(ranked)) == ([2, 4], [6, 8], [10])
    assert "resumed" not in first
    assert "resumed at step 4: {'version': 1" in second
    assert "'position': 8}" in second
    assert "resumed at step 8" in ranked
    assert "'position': 16}" in ranked
    assert "skipped" not in first + second + ranked


def test_what_it_prints(page: Ran) -> None:
    assert page.of("clear = open_chips") == "42 0\n"
    assert "'pixels': (6, " in page.of("platforms=")
    assert "'position': 42}" in page.of("ChipSampler(")
    assert "area.parquet: 6 chips, vectors of 96" in page.of("examples/embed_area.py")
    assert f"{S2}_one-2-1" in page.of("read_parquet")


def trained(page: Ran, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.chdir(page.folder)
    return of_script("examples/train_mae.py", "demo/storage", "--batch-size", "2", "--workers", "0", *arguments)


def test_a_resumed_run_trains_as_one_that_was_not_broken_off(page: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, steps in (("whole", "8"), ("half", "3"), ("half", "8")):
        trained(page, monkeypatch, "--steps", steps, "--checkpoint", f"{name}.pt")
    whole, half = (torch.load(page.folder / f"{name}.pt", weights_only=True) for name in ("whole", "half"))
    assert whole["loader"] == half["loader"]
    for name, numbers in whole["model"].items():
        torch.testing.assert_close(half["model"][name], numbers, rtol=0, atol=1e-5)


def test_the_loss_falls(page: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    said = trained(
        page, monkeypatch, "--platform", "linz", "--steps", "40", "--every", "10", "--checkpoint", "falls.pt"
    )
    losses = [float(loss) for loss in re.findall(r"loss (\S+),", said)]
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]
