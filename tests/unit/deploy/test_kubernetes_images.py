"""Tags of the images on Kubernetes: what `set-images` writes, and what an upgrade then applies."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kubernetes import FOLDER, JOBS, rendered, runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests")

REGISTRY = "registry.example:5000/btc"


def _set(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / "set-images", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("tags", [("0123456789ab",), ("0.2.0", "1e10")])
def test_every_image_gets_the_tag_and_a_job_its_name(tags: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, folder)
    for tag in tags:
        assert _set(folder, REGISTRY, tag).returncode == 0
    tag = tags[-1]
    found = rendered(folder)
    images = {
        container["image"]
        for (kind, _), each in found.items()
        if runs(kind)
        for container in each["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"{REGISTRY}/{name}:{tag}" for name in ("streaming", "serving", "assets", "mlflow")}
    assert {name for kind, name in found if kind == "Job"} == {f"{job}-{tag}" for job in JOBS}
    chart = yaml.safe_load((folder / "values" / "dagster.yaml").read_text())
    (code,) = chart["dagster-user-deployments"]["deployments"]
    assert (code["image"]["repository"], code["image"]["tag"]) == (f"{REGISTRY}/assets", tag)


@pytest.mark.parametrize("arguments", [(), (REGISTRY,), (REGISTRY, "latest"), (REGISTRY, "Main Branch")])
def test_a_tag_that_names_no_commit_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    done = _set(tmp_path / "kubernetes", *arguments)
    assert done.returncode == 2
    assert "the tag names a commit" in done.stderr


def test_the_first_step_of_an_upgrade_applies_the_settings_and_the_preparation_and_nothing_else() -> None:
    page = (FOLDER.parents[1] / "docs" / "how-to" / "containers.md").read_text()
    selector = "app.kubernetes.io/component in (settings, prepare)"
    assert f"kubectl apply -k deploy/kubernetes -l '{selector}'" in page
    key, _, wanted = selector.partition(" in ")
    chosen = [
        (kind, name.rpartition("-0-")[0] or name)
        for (kind, name), each in rendered().items()
        if each["metadata"].get("labels", {}).get(key) in wanted.strip("()").split(", ")
    ]
    assert sorted(chosen) == [("ConfigMap", "btc"), ("Job", "prepare")]
