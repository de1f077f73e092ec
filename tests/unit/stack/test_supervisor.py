"""What supervisord gets from the stack: its configuration, the environment of every process, and requests to stop one."""

from __future__ import annotations

import configparser
import os
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.errors import StackError
from stack import supervisor
from stack.component import Component
from stack.layout import ROOT
from stack.supervisor import Supervisor, _environment
from stack.supervisor_conf import conf_text

if TYPE_CHECKING:
    from stack.layout import Layout


def test_every_process_finds_our_programs_before_packages_of_the_same_names(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert _environment(layout)["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/elsewhere"]
    assert layout.environment()["PYTHONPATH"] == _environment(layout)["PYTHONPATH"]
    assert (ROOT / "streaming" / "__main__.py").is_file()


def test_the_address_of_a_real_exchange_does_not_reach_a_simulated_stack(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_EXCHANGE_WS_URL", "wss://ws.kraken.com/v2")
    monkeypatch.setenv("BTC_MODEL_TRAINER", "dask")
    environment = _environment(layout)
    assert "BTC_EXCHANGE_WS_URL" not in environment
    assert environment["BTC_MODEL_TRAINER"] == "dask"
    assert environment["BTC_ENV_FILE"] == str(layout.env_file)


def test_words_and_values_with_special_characters_reach_a_process_unchanged(layout: Layout) -> None:
    command = ("a program", 'say "hello"', "100%", "back\\slash")
    component = Component("kafka", "Kafka, the log", command, env={"PASSWORD": 'a"b%c'}, user="nobody")
    conf = configparser.RawConfigParser()
    conf.read_string(conf_text(layout, [component]))
    program = conf["program:kafka"]
    # supervisord expands "%%" to "%", then splits as a shell does.
    assert program["command"] == r'"a program" "say \"hello\"" "100%%" "back\\slash"'
    assert program["environment"] == r'PASSWORD="a\"b%%c"'
    assert program["user"] == "nobody"


def test_logs_are_rotated_at_ten_megabytes_or_at_the_size_of_the_setting(layout: Layout) -> None:
    def sizes() -> set[str]:
        conf = configparser.RawConfigParser()
        conf.read_string(conf_text(layout, [Component("kafka", "Kafka, the log", ("kafka",))]))
        assert conf["program:kafka"]["stdout_logfile_backups"] == "3"
        return {conf["supervisord"]["logfile_maxbytes"], conf["program:kafka"]["stdout_logfile_maxbytes"]}

    assert sizes() == {"10485760"}
    written = layout.env_file.read_text()
    layout.env_file.write_text(f"{written}BTC_STACK_LOG_BYTES=1000000\n")
    assert sizes() == {"1000000"}
    layout.env_file.write_text(f"{written}BTC_STACK_LOG_BYTES=1MB\n")
    with pytest.raises(StackError, match=r"BTC_STACK_LOG_BYTES in .* is '1MB'; it must be a number of bytes"):
        sizes()


class NeverStops(Supervisor):
    """A supervisor whose process ignores every request."""

    def _call(self, method: str, *arguments: Any) -> Any:
        (name, *_) = arguments
        return dict.fromkeys(("start", "now", "state", "pid"), 0) | {
            "name": name, "statename": "STOPPING", "spawnerr": "", "description": ""
        } if method == "supervisor.getProcessInfo" else True  # fmt: skip


def test_a_process_that_does_not_stop_is_an_error_and_no_endless_wait(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.0)
    with pytest.raises(StackError, match="kafka still runs 0 s after the request to stop it"):
        NeverStops(layout).stop_process("kafka")
