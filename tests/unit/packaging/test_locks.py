"""The lock files match pyproject.toml: every dependency is locked, at a version that it allows and with hashes."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
EXTRAS = [needed for extra in PROJECT["optional-dependencies"].values() for needed in extra]

WANTED = {
    "requirements.lock": PROJECT["dependencies"],
    "requirements-dev.lock": [
        *PROJECT["dependencies"],
        *EXTRAS,
        *GROUPS["docs"],
        *(each for each in GROUPS["dev"] if isinstance(each, str)),
    ],
    "requirements-docs.lock": GROUPS["docs"],
    "requirements-peers.lock": GROUPS["peers"],
}


def locked(file: str) -> dict[str, set[str]]:
    """The locked versions by package; a package may have one for each range of Python versions."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / file).read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize("file", WANTED)
def test_every_dependency_is_locked_at_a_version_that_pyproject_allows(file: str) -> None:
    versions = locked(file)
    for requirement in map(Requirement, WANTED[file]):
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in {file}: write the locks again, see CONTRIBUTING.md"
        assert all(requirement.specifier.contains(version) for version in found), f"{requirement} but {found}"


def test_development_uses_the_versions_that_users_run_and_build_the_documentation_with() -> None:
    dev = locked("requirements-dev.lock")
    for file in ("requirements.lock", "requirements-docs.lock"):
        run = locked(file)
        assert {name: dev.get(name) for name in run} == run


@pytest.mark.parametrize(
    "file", [*WANTED, *(f"deploy/locks/{path.name}" for path in (ROOT / "deploy/locks").iterdir())]
)
def test_every_locked_package_has_hashes_and_no_address(file: str) -> None:
    text = (ROOT / file).read_text()
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert re.search(r"^\S+==\S+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert "://" not in text
