"""Where tests find the repository and, where they lie beside it, recorded market data."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
"""Recordings; a test that needs one is skipped where the folder does not exist."""
