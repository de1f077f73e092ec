"""A file that somebody copied into the folder of features is checked before any process runs it, and once for each content."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from btc_core.errors import InvalidInput, ServiceError
from btc_core.features.user import check as checks
from btc_core.features.user import folder as folders
from btc_core.features.user.files import read_feature, version_of
from btc_core.features.user.folder import features_in, remove, store
from btc_core.features.user.values import UserFeatures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.features.user.files import FeatureFile

pytestmark = pytest.mark.unit

GOOD = "    return minutes.close[-1]\n"
AHEAD = "    return minutes.close[30] - minutes.close[0]\n"
ENDLESS = "    k = 0\n    while k < 5:\n        k = (k + 1) % 5\n    return float(k)\n"
SLOW = "    total = 0.0\n    for k in range(20_000):\n        total += minutes.close[k % 30] % 7.0\n    return total\n"


@pytest.fixture(autouse=True)
def a_process_that_has_checked_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(folders, "_refusals", {})
    monkeypatch.setattr(folders, "_checking", {})
    return


def copied(folder: Path, name: str, body: str) -> Path:
    """A file that was put into the folder without `btc features add`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(
        f'NAME = "{name}"\nUNIT = "1"\nMEANING = "an example"\nMINUTES = 30\n\n\ndef feature(minutes):\n{body}'
    )
    return path


def never(_file: FeatureFile) -> NoReturn:
    pytest.fail("the file was checked again")


def test_of_files_copied_by_hand_only_those_that_pass_the_check_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, ahead, slow = (copied(tmp_path, *each) for each in (("good", GOOD), ("ahead", AHEAD), ("slow", SLOW)))
    streamed = UserFeatures.in_folder(tmp_path)
    assert streamed is not None
    assert streamed.names == ("good",)
    said = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(said) == 2
    for line, path, reason in zip(said, (ahead, slow), ("line 8: it looks ahead", "may take 100 µs"), strict=True):
        assert line.startswith(path.name)
        assert reason in line
        assert f"{path} is left out" in line
        assert line.endswith(f"correct it, and install it with `btc features add {path}`")
    monkeypatch.setattr(folders, "check", never)
    monkeypatch.setattr(folders, "_refusals", {})
    again = UserFeatures.in_folder(tmp_path)
    assert again is not None
    assert again.names == ("good",), "another process has the same set, and reads it from the marks"
    assert again.version == streamed.version == version_of([read_feature(good)])


def test_an_endless_loop_that_was_copied_by_hand_ends_with_the_process_of_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "CHECK_S", 4.0)
    monkeypatch.setattr(checks, "WAIT_FACTOR", 60)  # a busy machine takes long for four seconds of processor time
    copied(tmp_path, "endless", ENDLESS)
    assert UserFeatures.in_folder(tmp_path) is None
    assert "took longer than 4 s of processor time" in caplog.text
    monkeypatch.setattr(folders, "check", never)
    monkeypatch.setattr(folders, "_refusals", {})
    assert UserFeatures.in_folder(tmp_path) is None


def test_a_changed_file_and_one_that_an_older_check_passed_are_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def check(file: FeatureFile) -> None:
        checked.append(file.version)
        if b"[30]" in file.source:
            raise InvalidInput(f"{file.path.name}: it looks ahead")

    monkeypatch.setattr(folders, "check", check)
    for _ in range(2):
        copied(tmp_path, "mine", GOOD)
        assert len(features_in(tmp_path)) == 1
    copied(tmp_path, "mine", AHEAD)
    assert features_in(tmp_path) == []
    corrected = read_feature(copied(tmp_path, "mine", "    return minutes.close[0]\n"))
    assert features_in(tmp_path) == [corrected]
    assert len(checked) == 3
    monkeypatch.setattr(folders, "CHECK_REVISION", checks.CHECK_REVISION + 1)
    monkeypatch.setattr(folders, "_refusals", {})
    assert features_in(tmp_path) == [corrected]
    assert len(checked) == 4


def test_an_installed_feature_has_its_mark_and_loses_it_when_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "check", never)
    file = read_feature(copied(tmp_path, "mine", GOOD))
    folder = tmp_path / "features"
    store(folder, file)
    assert [each.name for each in features_in(folder)] == ["mine"]
    remove(folder, "mine")
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_checked_once_by_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def refused(path: Path, *_: str) -> NoReturn:
        raise InvalidInput(f"{path} cannot be written: Read-only file system")

    monkeypatch.setattr(folders, "check", lambda file: checked.append(file.name))
    monkeypatch.setattr(folders, "_write_mark", refused)
    copied(tmp_path, "mine", GOOD)
    (tmp_path / "mine.checked").write_text("{")
    for _ in range(2):
        assert [each.name for each in features_in(tmp_path)] == ["mine"]
    assert checked == ["mine"]


def test_a_check_that_could_not_be_made_is_an_error_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def check(file: FeatureFile) -> None:
        attempts.append(file.name)
        if len(attempts) == 1:
            raise ServiceError("the process of the check did not start within 60 s")

    monkeypatch.setattr(folders, "check", check)
    copied(tmp_path, "mine", GOOD)
    with pytest.raises(ServiceError, match="did not start"):  # no process streams a set that others do not have
        features_in(tmp_path)
    assert [each.name for each in features_in(tmp_path)] == ["mine"]


def test_a_long_check_delays_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_checked, may_end = threading.Event(), threading.Event()

    def check(file: FeatureFile) -> None:
        if file.name == "long":
            is_checked.set()
            assert may_end.wait(60.0)

    monkeypatch.setattr(folders, "check", check)
    first, second = tmp_path / "first", tmp_path / "second"
    copied(first, "long", GOOD)
    copied(second, "short", GOOD)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(features_in, first)
        assert is_checked.wait(60.0)
        assert [each.name for each in features_in(second)] == ["short"]
        assert not slow.done()
        may_end.set()
        assert [each.name for each in slow.result(60.0)] == ["long"]
