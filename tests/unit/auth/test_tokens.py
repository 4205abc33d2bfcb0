"""Identifiers and tokens: their alphabets and lengths."""

from __future__ import annotations

import base64
import re

from services.auth.tokens import hash_token, new_session_id, new_token, new_user_id


def test_ids_are_of_the_protocols_alphabet() -> None:
    assert all(re.fullmatch(r"[a-z0-9]{8,16}", new_user_id()) for _ in range(200))
    assert all(re.fullmatch(r"[a-z0-9]{20}", new_session_id()) for _ in range(200))


def test_nothing_repeats() -> None:
    for make in (new_user_id, new_session_id, new_token):
        assert len({make() for _ in range(1000)}) == 1000


def test_a_token_has_256_bits_and_only_its_hash_is_kept() -> None:
    token = new_token()
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    assert len(hash_token(token)) == 32
    assert hash_token(token) != hash_token(new_token())
    assert hash_token("anything \udc80 at all") == hash_token("anything \udc80 at all")
