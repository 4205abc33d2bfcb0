"""testssl.sh over the clients' port, where it is installed: protocols, ciphers, certificate, known attacks.

It takes a minute or two. From version 3.2 on it gives a grade; version 3.0 does not, so the grade is worked out here
from what it found, by the SSL Server Rating Guide (version 2009r) that the later versions follow. It is told the
stack's own authority, so what it says of the chain is about that one: no public authority has signed it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

from tests.security.attempt import Attempt, Check, NotApplicableError, demand

SCAN_S = 280.0
_SECTIONS = ("-p", "-s", "-f", "-P", "-S", "-U")
_BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}
# What it says of every certificate of an authority of one's own.
ACCEPTED = {
    "cert_revocation": "an own authority has no revocation list: certificates are short-lived or replaced",
    "DNS_CAArecord": "about the operator's domain, not about this server",
}


async def check_testssl_finds_nothing(attempt: Attempt) -> str:
    """Nothing of severity LOW or worse but what is accepted above."""
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if program is None:
        raise NotApplicableError("testssl.sh is not installed")
    target = attempt.target
    with tempfile.TemporaryDirectory(prefix="parley-testssl-") as folder:
        report = Path(folder) / "report.json"
        process = await asyncio.create_subprocess_exec(
            program, "--quiet", "--color", "0", "--warnings", "off", "--ip", "one", "--openssl-timeout", "10",
            "--add-ca", str(target.ca), "--jsonfile", str(report), *_SECTIONS, f"{target.host}:{target.port}",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SCAN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NotApplicableError(f"testssl.sh did not end within {SCAN_S:g} s") from None
        findings = json.loads(report.read_text())
    return judge(findings)


def judge(findings: list[dict[str, str]]) -> str:
    """What is wrong fails; the answer is how much was looked at."""
    said = {finding["id"]: finding for finding in findings}
    demand("cert_trust" in said and "heartbleed" in said, f"the scan is not whole: {len(findings)} findings")
    for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"):
        demand("not offered" in said[version]["finding"], f"{version}: {said[version]['finding']}")
    bad = [finding for finding in findings if finding["severity"] in _BAD and finding["id"] not in ACCEPTED]
    demand(not bad, "; ".join(f"{finding['id']}: {finding['finding']}" for finding in bad[:5]))
    grade = said["overall_grade"]["finding"] if "overall_grade" in said else _grade(said)
    demand(grade in {"A", "A+"}, f"grade {grade}")
    return f"grade {grade}, {len(findings)} findings, none of them low or worse but for {', '.join(sorted(ACCEPTED))}"


def _grade(said: dict[str, dict[str, str]]) -> str:
    """The rating guide's letter: protocols 30 %, key exchange 30 %, ciphers 40 %; T where nobody vouches for the
    certificate. Only for servers that speak TLS 1.3 alone, whose protocols are worth 100."""
    if "passed" not in said["cert_chain_of_trust"]["finding"]:
        return "T"
    kind, bits = said["cert_keySize"]["finding"].split()[:2]
    best, good = {"EC": (384, 256), "RSA": (4_096, 2_048)}[kind]
    key_exchange = 100 if int(bits) >= best else 90 if int(bits) >= good else 0
    strengths = [128 if "_128_" in cipher else 256 for cipher in said["cipherorder_TLSv1_3"]["finding"].split()]
    ciphers = sum(100 if strength >= 256 else 80 for strength in (max(strengths), min(strengths))) / 2
    score = 0.3 * 100 + 0.3 * key_exchange + 0.4 * ciphers
    return next((letter for letter, least in (("A", 80), ("B", 65), ("C", 50), ("D", 35)) if score >= least), "F")


CHECKS: dict[str, Check] = {"testssl.sh finds nothing": check_testssl_finds_nothing}
