"""Merkle trees as in RFC 6962, section 2.1: the root of a list of entries, and proofs that an entry is in the tree.

A leaf is SHA-256 of 0x00 and the entry, and a node is SHA-256 of 0x01 and its two children, so no node can be passed off as
a leaf. A proof lists the siblings from the leaf up to the root.
What does not belong here: what an entry is (`forecast_leaves`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from btc_core.days.many_hashes import hashes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
LEAF_MARK, NODE_MARK = 0, 1
FEW = 64
"""Up to this many nodes are hashed one by one."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node with two children."""
    return sha256(b"\x01" + left + right).digest()


def leaf_hashes(text: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The hashes of the entries `text[begin:end]` (uint8), as uint8 (entries, 32)."""
    return hashes_of(text, begins, ends, LEAF_MARK)


class GrowingRoot:
    """The root of a list of leaf hashes that are added at the right. It holds one hash for each level of the tree."""

    def __init__(self) -> None:
        self.size = 0
        self._complete: list[bytes] = []
        """The roots of the complete subtrees from left to right: one for each bit of `size` that is set."""

    def add(self, leaf: bytes) -> None:
        """Add a leaf at the right."""
        node, size = leaf, self.size
        while size & 1:
            node, size = node_hash(self._complete.pop(), node), size >> 1
        self._complete.append(node)
        self.size += 1

    def extend(self, leaves: np.ndarray) -> None:
        """Add leaves, uint8 (leaves, 32): as many calls of `add` at a time."""
        size, level = self.size, 0
        nodes = leaves
        kept: list[bytes] = []
        while len(nodes) or size >> level:
            if size >> level & 1:
                left = np.frombuffer(self._complete.pop(), np.uint8)
                nodes = np.concatenate([left[np.newaxis], nodes])
            if len(nodes) & 1:
                kept.append(nodes[-1].tobytes())
                nodes = nodes[:-1]
            nodes = _node_hashes(nodes)
            level += 1
        self._complete = kept[::-1]
        self.size += len(leaves)

    def root(self) -> bytes:
        """The root of the leaves so far.

        >>> GrowingRoot().root().hex()[:8]
        'e3b0c442'
        """
        if not self._complete:
            return EMPTY_ROOT
        root = self._complete[-1]
        for left in reversed(self._complete[:-1]):
            root = node_hash(left, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of a tree with these leaf hashes."""
    growing = GrowingRoot()
    growing.extend(as_array(leaves))
    return growing.root()


def as_array(hashes: Iterable[bytes]) -> np.ndarray:
    """Hashes as uint8 (hashes, 32)."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def proof_of(leaves: Sequence[bytes] | np.ndarray, index: int) -> list[bytes]:
    """The siblings of a leaf from the bottom to the top. Raises `IndexError` for a leaf that the tree does not have.

    The leaves are hashes, or uint8 (leaves, 32).
    """
    if not 0 <= index < len(leaves):
        msg = f"the tree has {len(leaves)} leaves, and {index} is not one of them"
        raise IndexError(msg)
    siblings = []
    level = leaves if isinstance(leaves, np.ndarray) else as_array(leaves)
    while len(level) > 1:
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1].tobytes())
        level = _parents(level)
        index //= 2
    return siblings


def root_from_proof(leaf: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes | None:
    """The root that a proof leads to (RFC 9162, section 2.1.3.2); None if it has the wrong length for this place."""
    if not 0 <= index < size:
        return None
    at, last, root = index, size - 1, leaf
    for sibling in siblings:
        if last == 0:
            return None
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        at, last = at >> 1, last >> 1
    return root if last == 0 else None


def _parents(level: np.ndarray) -> np.ndarray:
    """The level above; a last node without a sibling moves up unchanged, as in the recursive definition of the RFC."""
    even = len(level) // 2 * 2
    return np.concatenate([_node_hashes(level[:even]), level[even:]])


def _node_hashes(nodes: np.ndarray) -> np.ndarray:
    """The hashes of the nodes whose children are the first and second, third and fourth, and so on."""
    pairs = np.ascontiguousarray(nodes).reshape(-1, 2 * HASH_BYTES)
    if len(pairs) <= FEW:
        return as_array(node_hash(pair[:HASH_BYTES].tobytes(), pair[HASH_BYTES:].tobytes()) for pair in pairs)
    begins = np.arange(len(pairs)) * 2 * HASH_BYTES
    return hashes_of(pairs.reshape(-1), begins, begins + 2 * HASH_BYTES, NODE_MARK)
