"""Passwords: what is weak, what is stored, and that any password is verified exactly as received."""

from __future__ import annotations

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.auth.common_passwords import COMMON_PASSWORDS
from services.auth.passwords import PasswordScheme, PepperMismatchError, check_new_password
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

PEPPER = b"p" * 32


@pytest.fixture(scope="module")
def scheme() -> PasswordScheme:
    return PasswordScheme(pepper=PEPPER, rounds=4)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "1234567",
        "x" * 7,
        "ab" * 65,
        "password",
        "PASSWORD",
        "12345678",
        "aaaaaaaa",
        "        ",
        "alice-in-wonderland",
    ],
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(ParleyError) as caught:
        check_new_password(password, username="alice-in-wonderland")
    assert caught.value.code is ErrorCode.WEAK_PASSWORD


def test_the_most_used_passwords_are_refused() -> None:
    assert len(COMMON_PASSWORDS) == 3_000
    assert all(8 <= len(password) <= 128 and password == password.casefold() for password in COMMON_PASSWORDS)
    for password in ("trustno1", "BASEBALL", "Qwertyuiop", "greyhoun"):
        with pytest.raises(ParleyError) as caught:
            check_new_password(password, username="alice")
        assert caught.value.code is ErrorCode.WEAK_PASSWORD


def test_the_name_is_no_password_in_any_spelling() -> None:
    with pytest.raises(ParleyError):
        check_new_password("ＡLICE-In-wonderland", username="alice-in-wonderland")


@pytest.mark.parametrize(
    "password", ["correct horse", "x1" * 64, "گذرواژه‌ی من", "nul\x00nul\x00", "pässwörd", "🔑🔑🔑🔑🔑🔑🔑🗝"]
)
def test_any_other_password_of_8_to_128_characters_is_fine(password: str) -> None:
    check_new_password(password, username="alice")


@given(password=st.text(st.characters(codec="utf-8"), max_size=200), other=st.text(st.characters(codec="utf-8")))
@settings(max_examples=60)
def test_the_same_password_is_verified_and_no_other(scheme: PasswordScheme, password: str, other: str) -> None:
    stored = scheme.hash(password)
    assert scheme.verify(password, stored)
    assert scheme.verify(other, stored) == (other == password)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a" * 72 + "b", "a" * 72 + "c"),  # bcrypt alone reads 72 bytes
        ("nul\x00one", "nul\x00two"),  # and older ones stop at NUL
        ("é" * 8, "e\u0301" * 8),  # normalisation would make these equal
        ("Password one", "password one"),
        ("trailing ", "trailing"),
    ],
)
def test_passwords_are_verified_exactly_as_received(scheme: PasswordScheme, one: str, other: str) -> None:
    assert not scheme.verify(other, scheme.hash(one))


def test_a_stored_hash_names_its_scheme_and_holds_neither_password_nor_pepper(scheme: PasswordScheme) -> None:
    stored = scheme.hash("correct horse")
    assert stored.startswith("hmac-sha256-bcrypt$")
    assert stored.split("$")[2:4] == ["2b", "04"]
    assert "correct" not in stored
    assert PEPPER.decode() not in stored
    assert stored != scheme.hash("correct horse")


def test_the_hash_is_useless_without_the_pepper(scheme: PasswordScheme) -> None:
    digest = "$" + scheme.hash("correct horse").split("$", 2)[2]
    assert not bcrypt.checkpw(b"correct horse", digest.encode())


def test_another_pepper_is_recognised(scheme: PasswordScheme) -> None:
    other = PasswordScheme(pepper=b"q" * 32, rounds=4)
    with pytest.raises(PepperMismatchError):
        other.verify("correct horse", scheme.hash("correct horse"))


def test_an_unknown_account_does_the_same_work_and_fails(
    scheme: PasswordScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed_with: list[bytes] = []
    real = bcrypt.hashpw

    def record(password: bytes, digest: bytes) -> bytes:
        hashed_with.append(digest[:7])
        return real(password, digest)

    stored = scheme.hash("correct horse")
    monkeypatch.setattr(bcrypt, "hashpw", record)
    assert scheme.verify("wrong horse", stored) is False
    assert scheme.verify("wrong horse", None) is False
    assert hashed_with == [b"$2b$04$", b"$2b$04$"]


def test_a_hash_of_other_rounds_is_outdated_but_good(scheme: PasswordScheme) -> None:
    newer = PasswordScheme(pepper=PEPPER, rounds=5)
    stored = scheme.hash("correct horse")
    assert not scheme.is_outdated(stored)
    assert newer.is_outdated(stored)
    assert newer.verify("correct horse", stored)
