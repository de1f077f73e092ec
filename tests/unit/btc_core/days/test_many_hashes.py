"""Hashes of many texts at a time are those of hashlib, and a tree that grows by many leaves is the one of single leaves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from btc_core.days.many_hashes import hashes_of
from btc_core.days.merkle import GrowingRoot, as_array, leaf_hash, leaf_hashes

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("lengths", [[], [0], [54, 55, 56, 62, 63, 64, 65], list(range(300)), [100_000, 1, 0, 7_000]])
@pytest.mark.parametrize("mark", [0, 1, 255])
def test_the_hashes_of_many_texts_are_those_of_hashlib(lengths: list[int], mark: int) -> None:
    text = np.random.default_rng(5).integers(0, 256, sum(lengths) + 3, dtype=np.uint8)
    ends = np.cumsum(lengths, dtype=np.int64) + 3
    begins = ends - np.array(lengths, np.int64)
    expected = [
        hashlib.sha256(bytes([mark]) + text[begin:end].tobytes()).digest()
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]
    found = hashes_of(text, begins, ends, mark)
    assert [each.tobytes() for each in found] == expected
    if mark == 0:
        assert as_array(map(leaf_hash, (text[a:b].tobytes() for a, b in zip(begins, ends, strict=True)))).tolist() == (
            leaf_hashes(text, begins, ends).tolist()
        )


@pytest.mark.parametrize("parts", [[0], [1], [2, 3], [1, 1, 1, 5], [300, 0, 1, 129, 7], [1_000, 1_000]])
def test_a_root_grows_by_many_leaves_as_by_single_ones(parts: list[int]) -> None:
    at_once, one_by_one = GrowingRoot(), GrowingRoot()
    for number, count in enumerate(parts):
        leaves = [leaf_hash(b"%d %d" % (number, each)) for each in range(count)]
        at_once.extend(as_array(leaves))
        for leaf in leaves:
            one_by_one.add(leaf)
        assert at_once.size == one_by_one.size
        assert at_once.root() == one_by_one.root()
    at_once.add(leaf_hash(b"one more"))
    one_by_one.add(leaf_hash(b"one more"))
    assert at_once.root() == one_by_one.root()
