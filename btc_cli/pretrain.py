"""`btc pretrain`: fit the pre-trained volatility model on public minute bars and write its file.

What does not belong here: the fit (`btc_core.models.pretraining`) and the file (`btc_core.models.pretrained`).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer

from btc_core.clock import from_ns, to_ns
from btc_core.days.bar_files import read_bar_file
from btc_core.days.file_names import market_of, markets_named, stem_of
from btc_core.errors import InvalidInput
from btc_core.market.checked_bars import sorted_bars
from btc_core.models import pretrained, pretraining
from btc_core.models.pretraining import Market, PretrainingRecipe
from btc_core.version import git_commit

if TYPE_CHECKING:
    import numpy.typing as npt

LIBRARIES = {"numpy": "numpy", "xgboost": "xgboost-cpu", "numba": "numba"}


def pretrain(
    bars: Annotated[
        list[str],
        typer.Option(
            help="A file of minute bars, or FILE=MARKET for one market of a file with several, for example "
            "alts.parquet=FIL/USDT. May be repeated; files of one market are joined."
        ),
    ],
    *,
    first: Annotated[str, typer.Option("--from", help="First day to fit on, for example 2022-01-01.")] = "",
    last: Annotated[str, typer.Option("--to", help="Day before which the fit ends.")] = "",
    scores: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with scores on bars that were not fitted on, to be kept in the file of the model."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the model is written.", show_default="into the package")
    ] = pretrained.SHIPPED,
) -> None:
    """Fit the pre-trained volatility model on minute bars of one or more markets, and write its file.

    The file holds the weights and where they come from, but no bars.
    """
    markets = _markets(bars, _day_ns(first, "--from"), _day_ns(last, "--to"))
    for market in markets:
        source = market.source
        typer.echo(f"{source.market}: {source.bars} bars, {source.first} to {source.last}")
    origin = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(bars, first, last),
        "versions": {name: version(package) for name, package in LIBRARIES.items()}
        | {"btc-forecast": git_commit() or version("btc-forecast")},
        "scores": msgspec.json.decode(scores.read_bytes(), type=dict[str, float]) if scores is not None else {},
    }
    model, golden = pretraining.fit(markets, PretrainingRecipe(), origin)
    pretrained.save(out, model, golden)
    made = pretrained.load(out)
    typer.echo(f"{out}: {out.stat().st_size // 1000} kB, {made.provenance}")


def _markets(named: list[str], begin_ns: int | None, end_ns: int | None) -> list[Market]:
    """The bars of each market, in the order of the files."""
    parts: dict[str, list[tuple[Path, npt.NDArray[Any]]]] = {}
    for text in named:
        path, market = _file_and_market(text)
        is_mixed = "=" in text  # the rows of the file's other markets are left out
        read = read_bar_file(path, market, skip_bad_rows=is_mixed)
        parts.setdefault(market, []).append((path, read.bars))
    markets = []
    for market, files in parts.items():
        joined = sorted_bars(np.concatenate([part for _, part in files]), market)
        known = (joined["ts_ns"] >= (begin_ns or 0)) & (joined["ts_ns"] < (end_ns or np.iinfo(np.int64).max))
        kept = joined[known]
        if not len(kept):
            msg = f"--bars: no bars of {market} are in the chosen time"
            raise InvalidInput(msg)
        source = pretrained.Source(
            file=" ".join(path.name for path, _ in files),
            sha256=" ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path, _ in files),
            market=market,
            bars=len(kept),
            first=from_ns(int(kept["ts_ns"][0])).isoformat(),
            last=from_ns(int(kept["ts_ns"][-1])).isoformat(),
        )
        markets.append(Market(market, kept, source))
    return markets


def _file_and_market(text: str) -> tuple[Path, str]:
    name, _, market = text.partition("=")
    path = Path(name)
    found = {market_of(market) or market} if market else markets_named(stem_of(path.name))
    if len(found) != 1:
        msg = f"--bars: the name of {path.name} does not say of which market it is; write {name}=BTC/USDT, for example"
        raise InvalidInput(msg)
    return path, found.pop()


def _command(bars: list[str], first: str, last: str) -> str:
    """The command without the folders of this machine."""
    names = [f"{Path(name).name}{sign}{market}" for name, sign, market in (each.partition("=") for each in bars)]
    period = [part for option, day in (("--from", first), ("--to", last)) if day for part in (option, day)]
    return " ".join(["btc pretrain", *(f"--bars {name}" for name in names), *period])


def _day_ns(text: str, option: str) -> int | None:
    if not text:
        return None
    try:
        return to_ns(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
    except ValueError as error:
        msg = f"{option}: {text!r} is no day; write it as 2024-01-15"
        raise InvalidInput(msg) from error
