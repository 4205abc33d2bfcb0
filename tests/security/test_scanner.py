"""How the findings of testssl.sh are judged. (The scan itself is a check of tests/security_test.py.)"""

from __future__ import annotations

import pytest

from tests.security.attempt import SecurityError
from tests.security.scanner import judge


def finding(id_: str, text: str = "fine", severity: str = "OK") -> dict[str, str]:
    return {"id": id_, "finding": text, "severity": severity}


CLEAN = [
    *(finding(version, "not offered") for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2")),
    finding("cert_trust"),
    finding("heartbleed"),
    finding("cert_revocation", "Neither CRL nor OCSP URI provided", "HIGH"),
    finding("DNS_CAArecord", "--", "LOW"),
    finding("engine_problem", "no GOST", "WARN"),
    finding("cert_chain_of_trust", "passed."),
    finding("cert_keySize", "EC 256 bits"),
    finding("cipherorder_TLSv1_3", "TLS_AES_256_GCM_SHA384 TLS_AES_128_GCM_SHA256"),
]


def with_finding(id_: str, text: str) -> list[dict[str, str]]:
    return [finding(id_, text) if each["id"] == id_ else each for each in CLEAN]


def test_a_clean_scan_passes() -> None:
    assert judge(CLEAN).startswith("grade A, 13 findings")


@pytest.mark.parametrize("severity", ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"])
def test_whatever_is_low_or_worse_fails_with_what_was_said(severity: str) -> None:
    with pytest.raises(SecurityError, match="sweet32: vulnerable"):
        judge([*CLEAN, finding("sweet32", "vulnerable", severity)])


def test_another_version_fails() -> None:
    with pytest.raises(SecurityError, match="TLS1_2: offered"):
        judge([finding("TLS1_2", "offered") if each["id"] == "TLS1_2" else each for each in CLEAN])


def test_half_a_scan_is_none() -> None:
    with pytest.raises(SecurityError, match="not whole"):
        judge(CLEAN[:5])


@pytest.mark.parametrize(
    ("id_", "text", "grade"),
    [("cert_chain_of_trust", "failed (self signed CA in chain).", "T"), ("cert_keySize", "RSA 1024 bits", "B")],
)
def test_a_lower_grade_fails(id_: str, text: str, grade: str) -> None:
    with pytest.raises(SecurityError, match=f"grade {grade}"):
        judge(with_finding(id_, text))


def test_the_scanners_own_grade_goes_first() -> None:
    with pytest.raises(SecurityError, match="grade B"):
        judge([*CLEAN, finding("overall_grade", "B")])
