"""Libraries in environments of their own: stacchip, readers of Parquet, and PyTorch with Clay's own loader."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".oracle"
BUILD_SECONDS = 900  # on a busy machine
RUN_SECONDS = 300
TESTS_SECONDS = 1200  # of a module of tests
# numpy 1 has no wheels for Python 3.13 and later.
TOO_NEW = (3, 13)

Indexer = Literal["Sentinel2Indexer", "LandsatIndexer", "NoStatsChipIndexer", "ModisIndexer"]
# As stacchip's own processors call them.
CHIP_MAX_NODATA: dict[str, float] = {"LandsatIndexer": 0.0}
DEFAULT_CHIP_MAX_NODATA = 0.5


class OracleUnavailableError(Exception):
    """The environment cannot be built here."""


class Environment:
    """A virtual environment of its own, for libraries that do not fit ours.

    It lies in `<repository>/.oracle/`, in a folder named after its list of packages and the hash of it.
    """

    def __init__(self, requirements: str) -> None:
        """Build the environment unless it is there; a few seconds with a warm package cache, else a download.

        Args:
            requirements: name of the list of packages beside this module, without `.txt`; complete, with versions.

        Raises:
            OracleUnavailableError: uv is missing, or the packages cannot be fetched.
        """
        self._requirements = HERE / f"{requirements}.txt"
        digest = hashlib.sha256(self._requirements.read_bytes()).hexdigest()[:12]
        folder = HOME / f"{requirements}-{digest}"
        self._python = folder / "bin" / "python"
        complete = folder / "complete"
        if complete.exists():
            return
        HOME.mkdir(exist_ok=True)
        with (HOME / f"{requirements}.lock").open("w") as lock:  # parallel test processes: one builds, the others wait
            fcntl.flock(lock, fcntl.LOCK_EX)
            if complete.exists():
                return
            for old in HOME.glob(f"{requirements}-*"):
                shutil.rmtree(old)
            self._build(folder)
            complete.touch()

    def _build(self, folder: Path) -> None:
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            raise OracleUnavailableError("uv is not installed (make setup installs it)")
        python = sys.executable if sys.version_info < TOO_NEW else ">=3.11,<3.13"
        _do([uv, "venv", "--python", python, str(folder)])
        _do([uv, "pip", "install", "--no-deps", "--python", str(self._python), "-r", str(self._requirements)])

    def run(self, script: str, *arguments: str) -> None:
        """Run a script beside this module in the environment.

        Raises:
            RuntimeError: it failed; the message holds its output.
        """
        done = subprocess.run(
            [str(self._python), "-I", str(HERE / script), *arguments],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{script} failed on {' '.join(arguments)}:\n{done.stderr[-3000:]}")


def _do(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OracleUnavailableError(f"{' '.join(command)} took over {BUILD_SECONDS} s") from error
    if done.returncode != 0:
        raise OracleUnavailableError(f"its environment cannot be built: {done.stderr.strip().splitlines()[-1:]}")


class Torch(Environment):
    """PyTorch and Clay's own loader and model, with this project and all that it needs at hand.

    A CPU build: the other one is 3 GB of CUDA libraries. The files of claymodel are those of PyPI, unchanged; they lie
    in a folder named `src`, as which they import one another.
    """

    VERSION = "2.13.0"
    CLAY = "claymodel==1.5.0"

    def __init__(self) -> None:
        super().__init__("torch")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self._python

    @property
    def clay(self) -> Path:
        """Folder that has claymodel as `src`."""
        return self._python.parents[1] / "claymodel"

    def _build(self, folder: Path) -> None:
        # Of the same interpreter, as it takes the packages of this environment too.
        _do([sys.executable, "-m", "venv", str(folder)])
        install = [str(self._python), "-m", "pip", "install", "--quiet", "--no-deps"]
        try:
            _do([*install, f"torch=={self.VERSION}+cpu"])  # where pip is told of a folder or an index that has it
        except OracleUnavailableError as first:
            uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
            if uv is None:
                raise
            try:
                wanted = ["--torch-backend=cpu", "--no-deps", f"torch=={self.VERSION}"]
                _do([uv, "pip", "install", "--python", str(self._python), *wanted])
            except OracleUnavailableError as second:
                raise OracleUnavailableError(f"no CPU build of PyTorch {self.VERSION}: {first}; {second}") from second
        _do([*install, "-r", str(self._requirements)])
        with tempfile.TemporaryDirectory(prefix="clay-wheel-") as wheels:
            _do([str(self._python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, self.CLAY])
            (wheel,) = Path(wheels).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self.clay / "src")
        ours = sysconfig.get_paths()["purelib"]
        theirs = next(folder.glob("lib/python*/site-packages"))
        (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run tests of ours there, with this repository's code."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(HERE.parents[1]), "ORACLE_CLAYMODEL": str(self.clay)}
        environment["OMP_NUM_THREADS"] = "1"  # threads that wait for one another keep their cores busy
        return subprocess.run(
            [str(self._python), "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *arguments],
            capture_output=True,
            text=True,
            timeout=TESTS_SECONDS,
            check=False,
            cwd=HERE.parents[1],
            env=environment,
        )


class Readers(Environment):
    """Readers of Parquet that nothing of ours needs, such as Dask and Polars."""

    def __init__(self) -> None:
        super().__init__("readers")

    def open(self, merged_index: Path) -> dict[str, list[list[Any]]]:
        """Reader → chip id, platform and year of every row, in order, of an index opened in its plainest form."""
        with tempfile.TemporaryDirectory(prefix="clay-readers-") as folder:
            out = Path(folder) / "rows.json"
            self.run("open_index.py", str(merged_index), str(out))
            found: dict[str, list[list[Any]]] = json.loads(out.read_text(encoding="utf-8"))
        return found


class Stacchip(Environment):
    """stacchip 0.1.38 behind one call."""

    def __init__(self) -> None:
        super().__init__("stacchip")

    def index(self, item_json_path: Path, platform_class: Indexer, chip_max_nodata: float | None = None) -> pa.Table:
        """Return stacchip's chip index of an item.

        Args:
            item_json_path: STAC item with `proj:epsg`, and `proj:shape` and `proj:transform` in its
            properties
                or assets (of several transforms stacchip takes the coarsest), its hrefs readable local paths.
                Landsat: `assets.qa_pixel.alternate.s3.href` is what is read.
            platform_class: name of the class in `stacchip.indexer`.
            chip_max_nodata: chips with more nodata are left out; by default 0 for Landsat, else 0.5.

        Returns:
            Columns chipid, date, chip_index_x, chip_index_y, cloud_cover_percentage, nodata_percentage
            (shares, 0 to 1) and geometry (WKT, EPSG:4326), row by row of chips.

        Raises:
            RuntimeError: stacchip failed; the message holds its output.
        """
        if chip_max_nodata is None:
            chip_max_nodata = CHIP_MAX_NODATA.get(platform_class, DEFAULT_CHIP_MAX_NODATA)
        with tempfile.TemporaryDirectory(prefix="clay-oracle-") as folder:
            out = Path(folder) / "index.parquet"
            self.run("run_stacchip.py", str(item_json_path), platform_class, str(chip_max_nodata), str(out))
            return pq.read_table(out)
