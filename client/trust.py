"""Why a server's certificate is believed: an authority, or a certificate that a person decided to trust. Never nothing.

The order is: the authority given with --ca; the authority of a stack that runs on this machine (`run/stack.json`),
for its own ports; a certificate pinned earlier; the authorities that this machine trusts anyway.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from client.address import Address
    from client.known_hosts import KnownHosts
    from client.stack import Stack

ALPN_PROTOCOLS = ["parley/2"]


@dataclass(frozen=True)
class Authority:
    """The certificate must be signed by an authority and carry the server's name.

    `ca` is a PEM file, or None for the authorities of this machine. `may_pin` says whether a person may decide to
    trust a certificate that this authority did not sign: not where somebody named the authority.
    """

    server_name: str
    ca: Path | None = None
    may_pin: bool = False


@dataclass(frozen=True)
class Pin:
    """The certificate must be this very one: SHA-256 of its DER form, 64 hexadecimal digits."""

    fingerprint: str
    decided_in: Path


Trust = Authority | Pin


def choose_trust(address: Address, *, ca: Path | None, stacks: Iterable[Stack], known_hosts: KnownHosts) -> Trust:
    """Decides what the server at `address` has to show. Raises TrustError where known_hosts cannot be read."""
    # A certificate made on one machine names localhost, not 127.0.0.1; both lead to the same place.
    server_name = "localhost" if address.is_loopback else address.host
    if ca is not None:
        return Authority(server_name, ca)
    if address.is_loopback:
        for stack in stacks:
            if address.port in stack.client_ports:
                return Authority(server_name, stack.client_ca)
    pinned = known_hosts.fingerprint(address)
    if pinned is not None:
        return Pin(pinned, known_hosts.path)
    return Authority(server_name, may_pin=True)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """The TLS settings that enforce `trust`; for a Pin together with `check_certificate`, before anything is sent.

    Raises TrustError when the authority's file cannot be read.
    """
    if isinstance(trust, Pin):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # check_certificate compares the certificate itself
    else:
        try:
            context = ssl.create_default_context(cafile=str(trust.ca) if trust.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise TrustError(f"{trust.ca}: cannot be read as a certificate authority ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    return context


def probing_context() -> ssl.SSLContext:
    """TLS settings that accept anything, only to see which certificate a server shows; never to send something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    return context


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate's DER form, in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def readable(fingerprint: str) -> str:
    """A fingerprint as people compare it: upper case, colons between the bytes."""
    return ":".join(fingerprint[i : i + 2] for i in range(0, len(fingerprint), 2)).upper()


def check_certificate(address: Address, trust: Trust, certificate: bytes | None) -> None:
    """Compares what the server showed with a Pin. Raises TrustError when it is another certificate."""
    if not isinstance(trust, Pin):
        return
    if certificate is None:
        raise TrustError(f"{address} showed no certificate")
    shown = fingerprint_of(certificate)
    if shown != trust.fingerprint:
        raise TrustError(
            f"{address} shows another certificate than the one you trusted: somebody may be listening in.\n"
            f"  trusted  {readable(trust.fingerprint)}\n"
            f"  shown    {readable(shown)}\n"
            f"If the server's operator confirms the change, remove the line {address} from {trust.decided_in}.",
            fingerprint=shown,
        )


def refusal(address: Address, trust: Authority, reason: str, fingerprint: str | None) -> TrustError:
    """The error for a certificate that the authority does not vouch for, with what can be done about it."""
    if trust.ca is not None:
        hint = f"{trust.ca} does not vouch for it."
    else:
        hint = (
            "Give its authority with --ca FILE (on the server's machine: certificates/ in its home), "
            "or start the client in the home of the stack, or run `parley chat` on a terminal to decide for yourself."
        )
    return TrustError(
        f"The certificate of {address} cannot be verified: {reason}. {hint}",
        fingerprint=fingerprint,
        may_pin=trust.may_pin and fingerprint is not None,
    )
