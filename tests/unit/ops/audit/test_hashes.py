"""Merkle trees and signatures against the words and figures of their RFCs."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.ops.audit.signing import public_key, sign
from eyeline.ops.audit.verifier import leaf_hash, merkle_root, signature_is_good

#: The inputs and roots of Certificate Transparency's own tests.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
#: RFC 8032, section 7.1: seed, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


@pytest.mark.parametrize("count", range(9))
def test_roots_are_those_of_certificate_transparency(count: int) -> None:
    assert merkle_root([leaf(bytes.fromhex(data)) for data in LEAVES[:count]]).hex() == ROOTS[count]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
@settings(max_examples=100, deadline=None)
def test_level_by_level_is_the_same_tree_as_the_recursive_one(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == tree_hash(leaves)


@given(st.data(), st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=40, unique=True))
@settings(max_examples=100, deadline=None)
def test_any_other_list_of_leaves_has_another_root(data: st.DataObject, leaves: list[bytes]) -> None:
    root, place = merkle_root(leaves), data.draw(st.integers(0, len(leaves) - 1))
    other = (place + 1) % len(leaves)
    swapped = list(leaves)
    swapped[place], swapped[other] = swapped[other], swapped[place]
    flipped = bytes([leaves[place][0] ^ 1]) + leaves[place][1:]
    changed = [
        swapped,
        leaves[:place] + leaves[place + 1 :],
        [*leaves[:place], flipped, *leaves[place + 1 :]],
        [*leaves[:place], leaves[place], *leaves[place:]],
        [root],
    ]
    assert [each for each in changed if merkle_root(each) == root] == [
        [root]
    ]  # a node given for a leaf: hence the count


_word = st.text("aé\0", max_size=3)
_fields = st.tuples(st.integers(0, 20), _word, _word, _word, _word)


@given(_fields, _fields)
@settings(max_examples=100, deadline=None)
def test_two_records_have_one_leaf_only_where_they_are_the_same(
    one: tuple[int, str, str, str, str], other: tuple[int, str, str, str, str]
) -> None:
    assert (leaf_hash(*one) == leaf_hash(*other)) == (one == other)


def test_letters_that_move_from_one_field_to_the_next_make_another_leaf() -> None:
    assert leaf_hash(1, "ab", "c", "d", "e") != leaf_hash(1, "a", "bc", "d", "e")


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_keys_and_signatures_are_those_of_the_rfc(seed: str, public: str, message: str, signature: str) -> None:
    assert public_key(bytes.fromhex(seed)).hex() == public
    assert sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    assert signature_is_good(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


@pytest.mark.parametrize("bit", range(0, 512, 37))
def test_a_signature_with_another_bit_is_refused(bit: int) -> None:
    _, public, message, signature = VECTORS[2]
    wrong = int.from_bytes(bytes.fromhex(signature), "big") ^ (1 << bit)
    assert not signature_is_good(bytes.fromhex(public), bytes.fromhex(message), wrong.to_bytes(64, "big"))


def test_another_message_another_key_and_a_signature_made_longer_are_refused() -> None:
    public, message, signature = (bytes.fromhex(part) for part in VECTORS[1][1:])
    assert not signature_is_good(public, message + b"!", signature)
    assert not signature_is_good(bytes.fromhex(VECTORS[0][1]), message, signature)
    assert not signature_is_good(public, message, signature + b"\0")
    longer = int.from_bytes(signature[32:], "little") + ORDER  # the same point, written otherwise
    assert not signature_is_good(public, message, signature[:32] + longer.to_bytes(32, "little"))
    assert not signature_is_good(b"\xff" * 32, message, signature)
