"""The identity of trades: which ones are new, which ids are missing, and which numbering an id belongs to.

A trade is identified by its id, time, price and quantity, because exchanges restart, skip and reuse ids. `TradeIntake`
decides about each trade. The bronze worker, the feature engine and the replays of a day all use it, one object for each
symbol, so they accept the same trades. `TradeContinuity` follows the ids of one gap or one numbering without contents.
What does not belong here: repairing a gap or storing it (`streaming`).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Literal

import msgspec

from btc_core.clock import NS_PER_MS, NS_PER_S
from btc_core.market.events import MAX_TRADE_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.market.events import TradeEvent

STATE_VERSION = "3"
"""Version of `IntakeState` in checkpoints. Raise it when a field or the meaning of one changes."""
MAX_IDS_PER_S = 1_000
"""The largest plausible number of trades of one market in a second. Large liquidations reach several hundred; an id that
is further ahead than this since the last trade does not continue the numbering."""
BURST_IDS = 1_000
"""How far an id may be ahead whatever the time: one order can match hundreds of others at the same instant."""
REMEMBERED_TRADES = 4_000
"""How many trades of a symbol the intake remembers, about 1 MB. A repeated trade beyond them is recognized by its time.
The snapshot of a new subscription repeats 50 trades."""
MEMORY_NS = 6 * 3_600 * NS_PER_S
"""Trades older than this count as beyond the memory. It is below the warm-up of the workers, so a worker that starts from
a checkpoint and one that starts from the log decide alike."""
SAME_PERIOD_NS = 600 * NS_PER_S
"""A trade may belong to a gap within one numbering if its time is at most this far from the gap. Trades of an earlier
numbering with the same id are older."""
CLOCK_STEP_NS = 5 * NS_PER_S
"""How far the time of a trade may be from its place in the order of ids: the exchange's clock sometimes steps."""
SAME_TIME_NS = NS_PER_MS
"""Times of one id that differ by less than this are the same time: REST and the socket may round it differently."""
KEPT_ABSENT_GAPS = 100
"""How many closed gaps with absent ids are kept, so that a trade that arrives after all corrects its gap."""

MAX_TIME_NS = 2**63 - 1

IdRange = tuple[int, int]
"""The first and the last id of a range, both included."""


class Verdict(Enum):
    """How a trade relates to the trades before it."""

    NEXT = "next"
    OPENS_GAP = "opens_gap"
    FILLS_GAP = "fills_gap"
    """Its id was missing or had been called absent; the trade is late."""
    DUPLICATE = "duplicate"
    """It came before, or it is older than everything that is remembered and no gap waits for it."""
    STARTS_EPOCH = "starts_epoch"
    """Its id does not continue the numbering. The next trade shows whether it starts another one or is an outlier."""
    CORRECTS = "corrects"
    """Its id came before with another time, price or quantity."""


FOLDED = frozenset({Verdict.NEXT, Verdict.OPENS_GAP, Verdict.STARTS_EPOCH})
"""The verdicts for trades that the features include when they arrive."""


def without(ranges: list[IdRange], first_id: int, last_id: int) -> list[IdRange]:
    """Return the ranges without the ids from `first_id` to `last_id`.

    >>> without([(3, 5), (8, 8)], 4, 8)
    [(3, 3)]
    """
    return [
        (low, high)
        for first, last in ranges
        for low, high in ((first, min(last, first_id - 1)), (max(first, last_id + 1), last))
        if low <= high
    ]


def count_ids(ranges: list[IdRange]) -> int:
    """Return the number of ids in the ranges."""
    return sum(last - first + 1 for first, last in ranges)


def _contains(ranges: list[IdRange], trade_id: int) -> bool:
    return any(first <= trade_id <= last for first, last in ranges)


class TradeContinuity:
    """The trade ids of one numbering that have been observed: the highest id, and the open gaps below it.

    An id below the first observed id counts as a duplicate, because history before the start is not a gap.
    """

    def __init__(self, last_id: int | None = None, open_gaps: list[IdRange] | None = None) -> None:
        self.last_id = last_id
        self.open_gaps: list[IdRange] = list(open_gaps or [])
        """Inclusive ranges of missing ids, oldest first."""

    def observe(self, trade_id: int) -> Verdict:
        """Add one id and return its verdict.

        >>> trades = TradeContinuity()
        >>> [trades.observe(i).value for i in (7, 8, 11, 9, 9)]
        ['next', 'next', 'opens_gap', 'fills_gap', 'duplicate']
        >>> trades.open_gaps
        [(10, 10)]
        """
        if self.last_id is None or trade_id == self.last_id + 1:
            self.last_id = trade_id
            return Verdict.NEXT
        if trade_id > self.last_id:
            self.open_gaps.append((self.last_id + 1, trade_id - 1))
            self.last_id = trade_id
            return Verdict.OPENS_GAP
        if _contains(self.open_gaps, trade_id):
            self.open_gaps = without(self.open_gaps, trade_id, trade_id)
            return Verdict.FILLS_GAP
        return Verdict.DUPLICATE

    def mark_absent(self, first_id: int, last_id: int) -> int:
        """Remove the missing ids of a range from the open gaps, because they will never arrive; return their number.

        >>> trades = TradeContinuity(10, [(3, 5), (8, 8)])
        >>> trades.mark_absent(4, 8), trades.open_gaps
        (3, [(3, 3)])
        """
        missing_before = self.missing()
        self.open_gaps = without(self.open_gaps, first_id, last_id)
        return missing_before - self.missing()

    def missing(self) -> int:
        """Return the number of ids that are missing in all open gaps."""
        return count_ids(self.open_gaps)


class Gap(msgspec.Struct):
    """A range of trade ids that were skipped, and what became of them."""

    epoch: int
    first_id: int
    last_id: int
    after_ns: int
    """The exchange time of the last trade before the gap."""
    before_ns: int
    """The exchange time of the trade that showed the gap."""
    missing: list[IdRange]
    absent: list[IdRange] = []
    """Ids that the exchange does not have."""
    withdrawn: bool = False
    """Whether the trade that showed the gap was an outlier, so that nothing was missing."""
    between_epochs: bool = False
    """Whether another numbering began, so that the number of ids is the largest plausible one and most were never used."""

    @property
    def state(self) -> str:
        """`open`, `repaired`, `absent` or `withdrawn`."""
        if self.withdrawn:
            return "withdrawn"
        if self.missing:
            return "open"
        return "absent" if self.absent else "repaired"

    def waits_for(self, trade_id: int, ts_ns: int) -> bool:
        """Whether the id has not arrived, and a trade of this exchange time can be the one that is missing."""
        earliest_ns, latest_ns = period_of(self.after_ns, self.before_ns, between_epochs=self.between_epochs)
        if not earliest_ns <= ts_ns <= latest_ns:
            return False
        if _contains(self.missing, trade_id):
            return True
        # a trade after the gap whose id the exchange did not have belongs to another numbering
        return ts_ns <= max(self.after_ns, self.before_ns) + CLOCK_STEP_NS and _contains(self.absent, trade_id)


def period_of(after_ns: int, before_ns: int, *, between_epochs: bool) -> tuple[int, int]:
    """Return the earliest and the latest exchange time of a trade that is missing between two trades with these times.

    Another trade with the same id belongs to another numbering. The trades around a gap between two epochs belong to two
    numberings, so no time beyond theirs is certain. Within one numbering, the time of a missing trade may be wrong.
    """
    if between_epochs:
        return after_ns, before_ns
    return min(after_ns, before_ns) - SAME_PERIOD_NS, MAX_TIME_NS


class Decision(msgspec.Struct, frozen=True):
    """What the intake decided about one trade."""

    verdict: Verdict
    epoch: int
    """The number of the numbering that the id belongs to."""
    gaps: tuple[Gap, ...] = ()
    """Gaps that this trade opened, closed, corrected or withdrew."""
    in_doubt: bool = False
    """Whether the next trade in order will show if the id of this one was right."""
    settled: Literal["", "epoch", "outlier"] = ""
    """What this trade showed about the last trade that was in doubt: that an epoch began with it, or that it was an
    outlier. A gap that was right is not reported."""

    @property
    def folded(self) -> bool:
        """Whether the features include the trade when it arrives."""
        return self.verdict in FOLDED


class Numbering(msgspec.Struct, frozen=True):
    """The newest trade of one numbering of ids."""

    epoch: int
    last_id: int
    last_ns: int
    """Exchange time."""
    recv_ns: int

    def plausible_ids(self, ts_ns: int, ts_recv_ns: int) -> int:
        """Return how many trades there can have been between the newest trade and a moment after it."""
        elapsed_ns = max(0, ts_ns - self.last_ns, ts_recv_ns - self.recv_ns)
        return BURST_IDS + MAX_IDS_PER_S * elapsed_ns // NS_PER_S

    def distance(self, trade: TradeEvent, ts_recv_ns: int) -> int:
        """Return how many ids the trade is ahead; 0 if it cannot continue this numbering."""
        ahead = trade.trade_id - self.last_id
        if ahead <= 1:
            return max(0, ahead)
        return ahead if ahead <= self.plausible_ids(trade.ts_event_ns, ts_recv_ns) else 0


Content = tuple[int, float, float]
"""The exchange time, price and quantity of a trade."""


class IntakeState(msgspec.Struct):
    """The state of a `TradeIntake`, as checkpoints hold it."""

    current: Numbering | None = None
    """The numbering of the newest trade in order."""
    doubted: Numbering | None = None
    """The numbering before the newest jump of the ids, until the next trade confirms or refutes the jump."""
    previous: Numbering | None = None
    """The numbering before the current epoch."""
    epochs: int = 1
    gaps: list[Gap] = []
    """Open gaps, and the newest ones with absent ids; oldest first."""
    known: dict[int, list[Content]] = {}
    """The contents of the newest trades by id, oldest first."""
    horizon_ns: int = 0
    """A trade up to this time may have been taken and forgotten."""


def _is_same(content: Content, seen: Content) -> bool:
    return content[1:] == seen[1:] and abs(content[0] - seen[0]) < SAME_TIME_NS


class TradeIntake:
    """Decides for each trade of one symbol, in the order of the log, whether it is new and where it belongs.

    Every trade with a new identity is taken exactly once. Only a trade older than everything that is remembered, for
    which no gap waits, counts as a duplicate unseen.
    """

    def __init__(self, state: IntakeState | None = None, remembered: int = REMEMBERED_TRADES) -> None:
        self.state = state or IntakeState()
        self._remembered = remembered

    def take(self, trade: TradeEvent, ts_recv_ns: int) -> Decision:
        """Add the next trade of the log and return the decision."""
        state, trade_id, ts_ns = self.state, trade.trade_id, trade.ts_event_ns
        content = (ts_ns, trade.price, trade.qty)
        known = state.known.get(trade_id)
        if state.current is None:
            state.current = Numbering(0, trade_id, ts_ns, ts_recv_ns)
            state.horizon_ns = min(ts_ns, ts_recv_ns)
            decision = Decision(Verdict.NEXT, 0)
        elif known is not None and any(_is_same(content, seen) for seen in known):
            return self._repeated(trade_id, ts_ns)
        elif known is not None and any(ts_ns == seen[0] for seen in known):
            decision = Decision(Verdict.CORRECTS, state.current.epoch)
        else:
            decision = self._place(trade, ts_recv_ns, is_known=known is not None)
        if decision.verdict is not Verdict.DUPLICATE:
            self.remember(trade_id, content, ts_recv_ns)
        return decision

    def mark_absent(self, first_id: int, last_id: int, before_ns: int | None = None) -> list[tuple[Gap, int]]:
        """Stop waiting for ids that the exchange does not have; return the gaps concerned and the number of their ids.

        Only the gap before a trade of the time `before_ns` is concerned if it is given: another numbering has the ids too.
        """
        changed = []
        for gap in self.state.gaps:
            if before_ns not in (None, gap.before_ns):
                continue
            rest = without(gap.missing, first_id, last_id)
            count = count_ids(gap.missing) - count_ids(rest)
            if count:
                gap.absent += [
                    (max(low, first_id), min(high, last_id))
                    for low, high in gap.missing
                    if max(low, first_id) <= min(high, last_id)
                ]
                gap.missing = rest
                changed.append((gap, count))
        self._drop_closed_gaps()
        return changed

    def open_gaps(self) -> list[Gap]:
        """Return the gaps in which ids are missing, oldest first."""
        return [gap for gap in self.state.gaps if gap.missing]

    def missing(self) -> int:
        """Return the number of ids that are missing in all open gaps."""
        return sum(count_ids(gap.missing) for gap in self.state.gaps)

    def _place(self, trade: TradeEvent, ts_recv_ns: int, *, is_known: bool) -> Decision:
        """Decide about a trade whose content is new."""
        state = self.state
        current = state.current
        assert current is not None  # noqa: S101 - `take` has set it
        is_next = trade.trade_id == current.last_id + 1
        if is_next and trade.ts_event_ns >= current.last_ns:
            return self._continue(current, trade, ts_recv_ns)
        gaps = [gap for gap in state.gaps if gap.waits_for(trade.trade_id, trade.ts_event_ns)]
        late = [gap for gap in gaps if trade.ts_event_ns <= gap.before_ns]
        if late:
            return self._fill(late[-1], trade.trade_id)
        if is_next:
            return self._continue(current, trade, ts_recv_ns)
        near = [each for each in (current, state.doubted) if each is not None and each.distance(trade, ts_recv_ns)]
        if near:
            return self._continue(min(near, key=lambda each: each.distance(trade, ts_recv_ns)), trade, ts_recv_ns)
        returns = state.previous is not None and state.previous.distance(trade, ts_recv_ns) > 0
        if gaps and not returns:
            return self._fill(gaps[-1], trade.trade_id)
        return self._place_elsewhere(current, trade, ts_recv_ns, is_known=is_known)

    def _place_elsewhere(self, current: Numbering, trade: TradeEvent, ts_recv_ns: int, *, is_known: bool) -> Decision:
        """Decide about a trade with a new content that no gap waits for and that does not continue the numbering."""
        state = self.state
        if is_known:  # ids may also have restarted; then the next trade continues from this one
            if trade.ts_event_ns <= current.last_ns or trade.trade_id == current.last_id:
                return Decision(Verdict.CORRECTS, current.epoch)
            return msgspec.structs.replace(self._jump(trade, ts_recv_ns), verdict=Verdict.CORRECTS)
        if state.previous is not None and state.previous.distance(trade, ts_recv_ns):
            return self._continue(state.previous, trade, ts_recv_ns)
        if min(trade.ts_event_ns, ts_recv_ns) <= max(state.horizon_ns, ts_recv_ns - MEMORY_NS):
            return Decision(Verdict.DUPLICATE, current.epoch)
        return self._jump(trade, ts_recv_ns)

    def _continue(self, numbering: Numbering, trade: TradeEvent, ts_recv_ns: int) -> Decision:
        """Advance a numbering: it settles a jump that is in doubt, and opens a gap if ids were skipped."""
        state = self.state
        changed: list[Gap] = []
        settled: Literal["", "epoch", "outlier"] = ""
        if state.doubted is not None and numbering is state.doubted:
            settled = "outlier"
            changed += self._withdraw_gap()
        elif state.doubted is not None and numbering is state.current and numbering.epoch != state.doubted.epoch:
            settled = "epoch"
            state.previous = state.doubted
            changed += self._open_gaps_around(state.doubted, numbering)
        elif numbering is state.previous:
            state.previous = state.current
            changed += self._withdraw_gaps_after(numbering)
        state.doubted = None
        state.current = Numbering(numbering.epoch, trade.trade_id, trade.ts_event_ns, ts_recv_ns)
        if trade.trade_id == numbering.last_id + 1:
            return Decision(Verdict.NEXT, numbering.epoch, tuple(changed), settled=settled)
        skipped = (numbering.last_id + 1, trade.trade_id - 1)
        gap = Gap(numbering.epoch, *skipped, numbering.last_ns, trade.ts_event_ns, [skipped])
        state.gaps.append(gap)
        state.doubted = numbering
        return Decision(Verdict.OPENS_GAP, numbering.epoch, (*changed, gap), in_doubt=True, settled=settled)

    def _jump(self, trade: TradeEvent, ts_recv_ns: int) -> Decision:
        """Begin another numbering at this trade; a jump before it that no trade continued was an outlier."""
        state = self.state
        settled: Literal["", "outlier"] = ""
        if state.doubted is None or state.current is None or state.doubted.epoch == state.current.epoch:
            state.doubted = state.current
        else:
            settled = "outlier"
        state.current = Numbering(state.epochs, trade.trade_id, trade.ts_event_ns, ts_recv_ns)
        state.epochs += 1
        return Decision(Verdict.STARTS_EPOCH, state.current.epoch, in_doubt=True, settled=settled)

    def _open_gaps_around(self, old: Numbering, new: Numbering) -> list[Gap]:
        """Open the gaps between the last trade of an epoch and the first of the next.

        Nobody knows whether trades were missed there, with the last ids of one or the first ids of the other numbering.
        The gaps have as many ids as there can have been trades, but none in common; the exchange says which of them exist.
        """
        count = old.plausible_ids(new.last_ns, new.recv_ns)
        old_end = min(old.last_id + count, MAX_TRADE_ID)
        new_begin = max(1, new.last_id - count)
        if new.last_id > old.last_id:
            old_end = min(old_end, new.last_id - 1)
            new_begin = max(new_begin, old_end + 1)
        ranges = ((old.epoch, old.last_id + 1, old_end), (new.epoch, new_begin, new.last_id - 1))
        opened = [
            Gap(epoch, first, last, old.last_ns, new.last_ns, [(first, last)], between_epochs=True)
            for epoch, first, last in ranges
            if first <= last
        ]
        self.state.gaps += opened
        return opened

    def _withdraw_gap(self) -> list[Gap]:
        """Remove the gap that the outlier opened, if it is still open."""
        outlier, before = self.state.current, self.state.doubted
        return self._withdraw(
            lambda gap: bool(
                outlier and before and (gap.first_id, gap.last_id) == (before.last_id + 1, outlier.last_id - 1)
            )
        )

    def _withdraw_gaps_after(self, numbering: Numbering) -> list[Gap]:
        """Remove the gap behind the last trade of an epoch that continues after all."""
        return self._withdraw(lambda gap: gap.epoch == numbering.epoch and gap.first_id > numbering.last_id)

    def _withdraw(self, is_wrong: Callable[[Gap], bool]) -> list[Gap]:
        found = [gap for gap in self.state.gaps if is_wrong(gap)]
        for gap in found:
            gap.missing, gap.absent, gap.withdrawn = [], [], True
        self.state.gaps = [gap for gap in self.state.gaps if not gap.withdrawn]
        return found

    def _fill(self, gap: Gap, trade_id: int) -> Decision:
        """Take a late trade; report its gap if that closed it or corrects what was said about it."""
        changed = self._settle(gap, trade_id)
        return Decision(Verdict.FILLS_GAP, gap.epoch, (gap,) if changed else ())

    def _settle(self, gap: Gap, trade_id: int) -> bool:
        """Stop waiting for an id; return whether the gap closed or lost an absent id."""
        was_absent = _contains(gap.absent, trade_id)
        gap.absent = without(gap.absent, trade_id, trade_id)
        gap.missing = without(gap.missing, trade_id, trade_id)
        self._drop_closed_gaps()
        return was_absent or not gap.missing

    def _repeated(self, trade_id: int, ts_ns: int) -> Decision:
        """Leave out a trade that came before. A gap that waits for it was opened after it came, and is settled."""
        epoch = self.state.current.epoch if self.state.current else 0
        for gap in self.state.gaps:
            if gap.waits_for(trade_id, ts_ns) and ts_ns <= gap.before_ns + SAME_PERIOD_NS:
                changed = self._settle(gap, trade_id)
                return Decision(Verdict.DUPLICATE, gap.epoch, (gap,) if changed else ())
        return Decision(Verdict.DUPLICATE, epoch)

    def remember(self, trade_id: int, content: Content, ts_recv_ns: int) -> None:
        """Keep the content of a trade that was taken, and forget the oldest one if there are too many."""
        state = self.state
        state.known.setdefault(trade_id, []).append(content)
        while len(state.known) > self._remembered:
            oldest = state.known.pop(next(iter(state.known)))
            newest_ns = oldest[0][0] if len(oldest) == 1 else max(ts_ns for ts_ns, _, _ in oldest)
            state.horizon_ns = max(state.horizon_ns, min(newest_ns, ts_recv_ns))

    def _drop_closed_gaps(self) -> None:
        """Forget repaired gaps, and all but the newest closed gaps that have absent ids."""
        closed = [gap for gap in self.state.gaps if not gap.missing]
        dropped = [gap for gap in closed if not gap.absent]
        dropped += [gap for gap in closed if gap.absent][:-KEPT_ABSENT_GAPS]
        if dropped:
            self.state.gaps = [gap for gap in self.state.gaps if not any(gap is each for each in dropped)]
