"""Build stacchip's environment once and ask it for the chip index of an item.

The environment lies in `<repository>/.oracle/`, in a folder named by the hash of `requirements.txt`.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".oracle"
REQUIREMENTS = HERE / "requirements.txt"
BUILD_SECONDS = 300
INDEX_SECONDS = 300
# numpy 1 has no wheels for Python 3.13 and later.
TOO_NEW = (3, 13)

Indexer = Literal["Sentinel2Indexer", "LandsatIndexer", "NoStatsChipIndexer", "ModisIndexer"]
# As stacchip's own processors call them.
CHIP_MAX_NODATA: dict[str, float] = {"LandsatIndexer": 0.0}
DEFAULT_CHIP_MAX_NODATA = 0.5


class OracleUnavailableError(Exception):
    """The environment cannot be built here."""


class Stacchip:
    """stacchip 0.1.38 behind one call."""

    def __init__(self) -> None:
        """Build the environment unless it is there; about 2 s with a warm package cache, else a download.

        Raises:
            OracleUnavailableError: uv is missing, or the packages cannot be fetched.
        """
        folder = HOME / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
        self._python = folder / "bin" / "python"
        complete = folder / "complete"
        if complete.exists():
            return
        HOME.mkdir(exist_ok=True)
        with (HOME / "lock").open("w") as lock:  # parallel test processes: one builds, the others wait
            fcntl.flock(lock, fcntl.LOCK_EX)
            if complete.exists():
                return
            for old in HOME.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            self._build(folder)
            complete.touch()

    def _build(self, folder: Path) -> None:
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            raise OracleUnavailableError("uv is not installed (make setup installs it)")
        python = sys.executable if sys.version_info < TOO_NEW else ">=3.11,<3.13"
        for command in (
            [uv, "venv", "--python", python, str(folder)],
            [uv, "pip", "install", "--no-deps", "--python", str(self._python), "-r", str(REQUIREMENTS)],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            except subprocess.TimeoutExpired as error:
                raise OracleUnavailableError(f"{' '.join(command)} took over {BUILD_SECONDS} s") from error
            if done.returncode != 0:
                raise OracleUnavailableError(
                    f"its environment cannot be built: {done.stderr.strip().splitlines()[-1:]}"
                )

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
            script = [str(self._python), "-I", str(HERE / "run_stacchip.py")]
            done = subprocess.run(
                [*script, str(item_json_path), platform_class, str(chip_max_nodata), str(out)],
                capture_output=True,
                text=True,
                timeout=INDEX_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(f"stacchip failed on {item_json_path}:\n{done.stderr[-3000:]}")
            return pq.read_table(out)
