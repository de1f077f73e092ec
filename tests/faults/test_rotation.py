"""Every secret is rotated while messages flow: nothing is lost, and the servers refuse the old secrets."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import httpx
import pytest

from btc_core.errors import StackError
from stack import rotation
from stack.ports import free_ports
from stack.rotation import VARIABLES, rotate
from stack.runtime import Stack
from stack.service_checks import check_services
from tests.faults.chaos import Chaos
from tests.faults.component_faults import COMPONENTS
from tests.faults.plan import Plan
from tests.faults.verdict import judge

pytestmark = pytest.mark.timeout(900)


def reload_status(stack: Stack, token: str) -> int:
    """What the API answers a request that needs its token."""
    url = f"http://127.0.0.1:{stack.settings.api.port}/reload"
    return httpx.post(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code


def interrupt_after_the_swap(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation of Valkey and PostgreSQL that ends before a process knows the new secrets."""

    def interrupted(*_arguments: object) -> None:
        raise StackError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "_finish", interrupted)
        with pytest.raises(StackError, match="interrupted"):
            rotate(stack, ("valkey", "postgres"))
    assert set(stack.layout.second_secrets()) == {"BTC_REDIS_PASSWORD", "BTC_POSTGRES_PASSWORD"}


def test_a_rotation_of_all_secrets_loses_no_message_and_ends_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(tempfile.mkdtemp(prefix="btc-rotation-"))
    stack = Stack(directory)
    try:
        stack.create("sim", free_ports(), ("--rate", "5", "--ledger-mb", "0"))
        stack.up(only=(*COMPONENTS, "store", "postgres", "api"))
        old, values = stack.settings, stack.layout.values()
        interrupt_after_the_swap(stack, monkeypatch)
        assert rotate(stack, ()) == tuple(VARIABLES)
        new = stack.layout.values()
        secrets = [variable for variables in VARIABLES.values() for variable in variables]
        assert {name for name in new if new[name] != values[name]} == set(secrets)
        refused = {found.subject: found.problem for found in check_services(old)}
        assert all("refuses" in problem for problem in refused.values()), refused
        assert [found.problem for found in check_services(stack.settings) if found.problem] == []
        assert reload_status(stack, values["BTC_API_TOKEN"]) == httpx.codes.UNAUTHORIZED
        assert reload_status(stack, new["BTC_API_TOKEN"]) != httpx.codes.UNAUTHORIZED
        report = Chaos(stack, Plan()).run()
        assert not report.not_reached
        verdict = judge(stack.settings)
        assert verdict.sound, verdict
    finally:
        stack.down()
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
