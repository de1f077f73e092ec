"""Merkle trees against the test vectors of RFC 6962 implementations, and proofs that must not hold."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_core.days.merkle import GrowingRoot, leaf_hash, node_hash, proof_of, root_from_proof, root_of

pytestmark = pytest.mark.unit

# The entries and roots of certificate-transparency-go, trillian and the reference C++ implementation of RFC 6962
# (`merkletree/merkle_tree_test.cc`).
ENTRIES = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def test_roots_are_those_of_the_reference_implementation() -> None:
    leaves = [leaf_hash(each) for each in ENTRIES]
    assert [root_of(leaves[:size]).hex() for size in range(1, 9)] == list(ROOTS)
    assert root_of([]) == sha256(b"").digest()


def test_a_proof_of_the_reference_implementation_is_reproduced() -> None:
    leaves = [leaf_hash(each) for each in ENTRIES]
    assert [each.hex() for each in proof_of(leaves, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proven_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([each])) for each in range(size)]
    index = data.draw(st.integers(0, size - 1))
    proof, root = proof_of(leaves, index), root_of(leaves)
    assert root_from_proof(leaves[index], index, size, proof) == root
    assert root_from_proof(leaf_hash(b"other"), index, size, proof) != root
    assert root_from_proof(leaves[index], index, size, [*proof, root]) is None
    if proof:
        assert root_from_proof(leaves[index], index, size, proof[:-1]) is None
        flipped = bytes([proof[0][0] ^ 1]) + proof[0][1:]
        assert root_from_proof(leaves[index], index, size, [flipped, *proof[1:]]) != root
        other = data.draw(st.integers(0, size - 1).filter(lambda at: at != index))
        assert root_from_proof(leaves[index], other, size, proof) != root
    assert root_from_proof(leaves[index], size, size, proof) is None


def test_a_node_is_never_a_leaf() -> None:
    left, right = leaf_hash(b"1"), leaf_hash(b"2")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_a_leaf_that_the_tree_does_not_have_has_no_proof() -> None:
    with pytest.raises(IndexError, match="the tree has 2 leaves, and 2 is not one of them"):
        proof_of([b"", b""], 2)


def test_a_growing_root_is_the_root_after_every_leaf() -> None:
    growing, leaves = GrowingRoot(), []
    for each in ENTRIES:
        leaves.append(leaf_hash(each))
        growing.add(leaves[-1])
        assert growing.root() == root_of(leaves)
    assert growing.size == len(ENTRIES)
