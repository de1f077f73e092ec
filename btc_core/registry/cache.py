"""Bundles on disk: a folder for each version of a model that this process has downloaded, and which champion was last.

Forecasts continue with the last champion while MLflow or the object store is away. Several processes share the folders,
so files appear by renaming. What does not belong here: where bundles come from (`bundles`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.models.bundle import load_bundle
from btc_core.names import CHAMPION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.models.bundle import BidModel, VolatilityModel

MANIFEST = "bundle.json"
KEPT_VERSIONS = 3
"""How many bundles of a model are kept; each is about a megabyte."""


class BundleCache:
    """The cached versions of one model, each in the folder of its number, and the file `champion` with the last one served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, version: str) -> bool:
        """Whether a version is in the cache."""
        return (self.folder / version / MANIFEST).is_file()

    def add(self, version: str, files: Mapping[str, bytes]) -> None:
        """Store the files of a version, all or none of them; does nothing if another process has stored it meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=self.folder))
        try:
            for name, data in files.items():
                (scratch / name).write_bytes(data)
            if not self.has(version):
                shutil.rmtree(self.folder / version, ignore_errors=True)  # what is left of an interrupted removal
                scratch.replace(self.folder / version)
        except OSError:
            if not self.has(version):
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def load(self, version: str) -> BidModel | VolatilityModel:
        """Load a cached version; raises `SchemaError` if it does not reproduce its golden batch."""
        return load_bundle(self.folder / version, version)

    def last_champion(self) -> str | None:
        """The version of the champion that was loaded last, None if there was none."""
        marker = self.folder / CHAMPION
        return marker.read_text().strip() if marker.is_file() else None

    def keep_champion(self, version: str) -> None:
        """Note which champion was loaded last, and remove all but the newest versions."""
        if self.last_champion() == version:
            return
        scratch = self.folder / f".{CHAMPION}-{os.getpid()}"
        scratch.write_text(version)
        scratch.replace(self.folder / CHAMPION)
        numbered = [path for path in self.folder.iterdir() if path.name.isdigit()]
        for path in sorted(numbered, key=lambda path: int(path.name))[:-KEPT_VERSIONS]:
            if path.name != version:
                shutil.rmtree(path, ignore_errors=True)
