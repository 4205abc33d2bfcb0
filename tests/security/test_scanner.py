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
]


def test_a_clean_scan_passes() -> None:
    assert judge(CLEAN).startswith("10 findings")


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
