"""SHA-256 of many short texts at a time: sixteen are hashed beside each other, and the GIL is free meanwhile.

A call of `hashlib` for each line of a log costs several times what the hashing itself costs, and holds the GIL. The texts of a
group pass through the rounds of FIPS 180-4 together, so that the processor computes one round of eight or sixteen of them with
one instruction. `hashlib` gives the same hashes, which a test compares.
What does not belong here: trees of hashes (`merkle`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from btc_core.compiled import njit

DIGEST_BYTES = 32
_LANES = 16
_BLOCK_BYTES, _BLOCK_WORDS, _ROUNDS = 64, 16, 64
_LENGTH_BYTES = 8  # of the number of bits at the end of the last block
_PRIMES = [n for n in range(2, 312) if all(n % d for d in range(2, int(n**0.5) + 1))]


def _fraction_bits(value: int, root: int) -> int:
    """The first 32 bits of the fraction of the square or cube root of a number (FIPS 180-4, sections 4.2.2 and 5.3.3)."""
    shifted = value << (32 * root)
    found: int = round(float(shifted) ** (1.0 / root))
    while found**root > shifted:
        found -= 1
    while (found + 1) ** root <= shifted:
        found += 1
    return found & 0xFFFFFFFF


_FIRST = np.array([_fraction_bits(prime, 2) for prime in _PRIMES[:8]], np.uint32)
_ROUND_WORDS = np.array([_fraction_bits(prime, 3) for prime in _PRIMES], np.uint32)


def hashes_of(text: np.ndarray, begins: np.ndarray, ends: np.ndarray, mark: int) -> np.ndarray:
    """SHA-256 of the byte `mark` and `text[begin:end]` (uint8) for each range, as uint8 (ranges, 32)."""
    blocks = (ends - begins + 1 + _LENGTH_BYTES) // _BLOCK_BYTES + 1
    found = np.empty((len(begins), DIGEST_BYTES), np.uint8)
    if len(begins):
        _hash_ranges(text, begins, ends, blocks, np.argsort(blocks, kind="stable"), np.uint8(mark), found)
    return found


@njit
def _rotated(word: Any, by: int) -> Any:
    return np.uint32(np.uint32(word >> np.uint32(by)) | np.uint32(word << np.uint32(32 - by)))


@njit
def _compress(words: Any, state: Any, a_rows: Any, e_rows: Any) -> None:
    """Add one block of each lane to its state.

    `a_rows` and `e_rows` hold the working variables a and e of each round; b, c, d and f, g, h are those of earlier rounds.
    The arrays are flat, with the lanes of a row beside each other, so that the compiler can compute a row at once.
    """
    for t in range(_BLOCK_WORDS, _ROUNDS):
        o = t * _LANES
        for lane in range(_LANES):
            near, far = words[o - 2 * _LANES + lane], words[o - 15 * _LANES + lane]
            small_0 = np.uint32(_rotated(far, 7) ^ _rotated(far, 18) ^ (far >> np.uint32(3)))
            small_1 = np.uint32(_rotated(near, 17) ^ _rotated(near, 19) ^ (near >> np.uint32(10)))
            words[o + lane] = np.uint32(
                words[o - 16 * _LANES + lane] + words[o - 7 * _LANES + lane] + small_0 + small_1
            )
    for i in range(4):
        for lane in range(_LANES):
            a_rows[i * _LANES + lane] = state[(3 - i) * _LANES + lane]
            e_rows[i * _LANES + lane] = state[(7 - i) * _LANES + lane]
    for t in range(_ROUNDS):
        o = t * _LANES
        round_word = _ROUND_WORDS[t]
        for lane in range(_LANES):
            a, b, c = a_rows[o + 3 * _LANES + lane], a_rows[o + 2 * _LANES + lane], a_rows[o + _LANES + lane]
            e, f, g = e_rows[o + 3 * _LANES + lane], e_rows[o + 2 * _LANES + lane], e_rows[o + _LANES + lane]
            big_1 = np.uint32(_rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25))
            choice = np.uint32(g ^ np.uint32(e & np.uint32(f ^ g)))
            first = np.uint32(e_rows[o + lane] + big_1 + choice + round_word + words[o + lane])
            big_0 = np.uint32(_rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22))
            majority = np.uint32(np.uint32(a & b) | np.uint32(c & np.uint32(a | b)))
            e_rows[o + 4 * _LANES + lane] = np.uint32(a_rows[o + lane] + first)
            a_rows[o + 4 * _LANES + lane] = np.uint32(first + big_0 + majority)
    for i in range(4):
        for lane in range(_LANES):
            state[i * _LANES + lane] = np.uint32(state[i * _LANES + lane] + a_rows[(67 - i) * _LANES + lane])
            state[(4 + i) * _LANES + lane] = np.uint32(
                state[(4 + i) * _LANES + lane] + e_rows[(67 - i) * _LANES + lane]
            )


@njit
def _pad(text: Any, begin: int, end: int, blocks: int, mark: int, padded: Any, at: int) -> None:
    """Write the mark, the text, and the padding of the standard into `padded` from `at` on."""
    size = end - begin
    padded[at] = mark
    source, target = text[begin:end], padded[at + 1 : at + 1 + size]
    for i in range(size):
        target[i] = source[i]
    stop = at + blocks * _BLOCK_BYTES
    for place in range(at + 1 + size, stop):
        padded[place] = 0
    padded[at + 1 + size] = 0x80
    bits = (size + 1) * 8
    for i in range(_LENGTH_BYTES):
        padded[stop - 1 - i] = (bits >> (8 * i)) & 0xFF


@njit
def _hash_ranges(text: Any, begins: Any, ends: Any, blocks: Any, order: Any, mark: int, found: Any) -> None:
    """Hash the ranges in this order, in which their numbers of blocks ascend."""
    words = np.empty(_ROUNDS * _LANES, np.uint32)
    state = np.empty(8 * _LANES, np.uint32)
    a_rows, e_rows = np.empty((_ROUNDS + 4) * _LANES, np.uint32), np.empty((_ROUNDS + 4) * _LANES, np.uint32)
    padded = np.zeros(_LANES * blocks[order[-1]] * _BLOCK_BYTES, np.uint8)
    padded_words = padded.view(np.uint32)
    for first in range(0, len(order), _LANES):
        lanes = min(_LANES, len(order) - first)
        most = blocks[order[first + lanes - 1]]
        for lane in range(lanes):
            which = order[first + lane]
            at = lane * most * _BLOCK_BYTES
            _pad(text, begins[which], ends[which], blocks[which], mark, padded, at)
        for i in range(8):
            state[i * _LANES : (i + 1) * _LANES] = _FIRST[i]
        for block in range(most):
            for lane in range(_LANES):
                at = (lane * most + block) * _BLOCK_WORDS
                block_words = padded_words[at : at + _BLOCK_WORDS]
                for t in range(_BLOCK_WORDS):
                    word = block_words[t]
                    swapped = np.uint32(_rotated(word, 8) & np.uint32(0xFF00FF00))
                    words[t * _LANES + lane] = np.uint32(
                        swapped | np.uint32(_rotated(word, 24) & np.uint32(0x00FF00FF))
                    )
            _compress(words, state, a_rows, e_rows)
            for lane in range(lanes):
                which = order[first + lane]
                if blocks[which] == block + 1:
                    for i in range(8):
                        word = state[i * _LANES + lane]
                        for place in range(4):
                            found[which, 4 * i + place] = np.uint8(
                                (word >> np.uint32(24 - 8 * place)) & np.uint32(0xFF)
                            )
