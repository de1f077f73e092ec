"""The plan of a run: what a seed injects."""

from __future__ import annotations

import pytest

from exchange_simulator.faults.catalogue import CATALOGUE, PerpetualFault
from tests.faults import component_faults
from tests.faults.component_faults import HANGS, HANGS_LONG_S, HANGS_S, ComponentFault
from tests.faults.plan import Plan, label, moments

pytestmark = pytest.mark.unit

AT_HOME = ("BTC/USD", "ETH/USD")
SYMBOLS = (*AT_HOME, "BTC/USDT@binance-perp")
LONG = Plan(seed=3, seconds=2_000.0, every_s=2.0)


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    assert list(moments(LONG, SYMBOLS)) == list(moments(LONG, SYMBOLS))
    assert list(moments(LONG, SYMBOLS)) != list(moments(Plan(4, LONG.seconds, LONG.every_s), SYMBOLS))


def test_many_draws_contain_every_kind_of_fault_of_both_markets() -> None:
    faults = [fault for _, together in moments(LONG, SYMBOLS) for fault in together]
    assert {label(fault) for fault in faults} == {*CATALOGUE, *component_faults.labels()}
    assert {getattr(fault, "symbol", "BTC/USD") for fault in faults} == set(AT_HOME)


def test_a_system_without_perpetuals_gets_no_faults_of_perpetuals() -> None:
    faults = [fault for _, together in moments(LONG, AT_HOME) for fault in together]
    perpetual = {name for name, kind in CATALOGUE.items() if issubclass(kind, PerpetualFault)}
    assert {label(fault) for fault in faults} == {*CATALOGUE, *component_faults.labels()} - perpetual


def test_some_moments_have_two_or_three_different_faults_of_components_and_of_the_exchange() -> None:
    together = [faults for _, faults in moments(LONG, SYMBOLS)]
    assert {len(faults) for faults in together} == {1, 2, 3}
    assert all(len({label(fault) for fault in faults}) == len(faults) for faults in together)
    assert any({isinstance(fault, ComponentFault) for fault in faults} == {True, False} for faults in together)
    times = [at_s for at_s, _ in moments(LONG, SYMBOLS)]
    assert times == sorted(times)
    assert times[-1] < LONG.seconds


def test_hangs_last_seconds_and_those_of_kafka_sometimes_outlast_the_session_timeout() -> None:
    faults = [
        fault for _, together in moments(LONG, SYMBOLS) for fault in together if isinstance(fault, ComponentFault)
    ]
    short = [fault.seconds for fault in faults if fault.kind == HANGS]
    long = [fault for fault in faults if fault.kind == component_faults.HANGS_LONG]
    assert HANGS_S[0] <= min(short) < max(short) <= HANGS_S[1]
    assert {(fault.component, fault.seconds) for fault in long} == {("kafka", HANGS_LONG_S)}
    assert len(long) < sum(fault.component == "kafka" and fault.kind == HANGS for fault in faults)
