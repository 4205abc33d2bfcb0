from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from deploy.local import certificates, renewal
from deploy.local.certificates import ensure_stack, make_admin, read_certificates

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=200)


def load(path: Path) -> x509.Certificate:
    return read_certificates(path)[0]


def said(certificate: x509.Certificate) -> object:
    extensions = certificate.extensions
    return (
        certificate.subject,
        extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
        extensions.get_extension_for_class(x509.ExtendedKeyUsage).value,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    ensure_stack(tmp_path, hosts=("chat.example.org",), now=NOW)
    make_admin(tmp_path, "alice", now=NOW)
    return tmp_path


def test_identities_are_found_by_their_files(directory: Path) -> None:
    found = [identity.name for identity in renewal.identities(directory)]
    assert found == ["admin-alice", "auth", "edge", "metrics", "rooms", "server"]


@pytest.mark.parametrize("name", ["admin-alice", "auth", "server"])
def test_a_renewed_certificate_says_the_same_with_a_new_key_for_a_year(directory: Path, name: str) -> None:
    before = load(directory / f"{name}-cert.pem")
    (identity,) = renewal.renew(directory, [name], now=LATER)
    after = load(identity.certificate)
    assert said(after) == said(before)
    assert after.public_key() != before.public_key()
    assert after.not_valid_after_utc == LATER + timedelta(days=365)
    after.verify_directly_issued_by(load(directory / f"{'client' if name == 'server' else 'grpc'}-ca-cert.pem"))
    assert certificates.read_pair(identity.certificate, identity.private_key) is not None
    assert stat.S_IMODE(identity.private_key.stat().st_mode) == 0o600


def test_only_what_was_named_is_renewed(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.glob("*.pem")}
    renewal.renew(directory, ["rooms", "rooms"], now=LATER)
    changed = {path.name for path, data in before.items() if path.read_bytes() != data}
    assert changed == {"rooms-cert.pem", "rooms-key.pem"}


def test_a_name_that_nobody_has_changes_nothing(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.glob("*.pem")}
    with pytest.raises(ValueError, match="no identity 'nobody'; there are: admin-alice, auth"):
        renewal.renew(directory, ["rooms", "nobody"], now=LATER)
    assert {path: path.read_bytes() for path in directory.glob("*.pem")} == before


def test_a_certificate_that_says_nothing_is_made_and_not_renewed(directory: Path) -> None:
    (directory / "auth-cert.pem").write_text("half a cert")
    with pytest.raises(ValueError, match="`parley certs make` makes it anew"):
        renewal.renew(directory, ["auth"], now=LATER)


def test_an_authority_and_its_successor_are_trusted_together(directory: Path) -> None:
    path, key = certificates.authority_paths(directory, "grpc")
    (old,) = read_certificates(path)
    renewal.renew_authority(directory, "grpc", now=LATER)
    new, still = read_certificates(path)
    assert still == old
    assert new.subject != old.subject
    found = certificates.read_pair(path, key)
    assert found is not None
    assert found[0] == new
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    load(directory / "auth-cert.pem").verify_directly_issued_by(old)
    renewal.renew(directory, ["auth"], now=LATER)
    load(directory / "auth-cert.pem").verify_directly_issued_by(new)


def test_one_replacement_at_a_time(directory: Path) -> None:
    renewal.renew_authority(directory, "grpc", now=LATER)
    with pytest.raises(ValueError, match="grpc-ca is being replaced already"):
        renewal.renew_authority(directory, "grpc", now=LATER)


def test_an_authority_that_vouches_for_somebody_is_not_retired(directory: Path) -> None:
    assert renewal.retire(directory, "grpc", now=LATER) == 0
    renewal.renew_authority(directory, "grpc", now=LATER)
    renewal.renew(directory, ["admin-alice", "auth", "edge", "metrics"], now=LATER)
    with pytest.raises(ValueError, match="rooms is still vouched for by the old authority"):
        renewal.retire(directory, "grpc", now=LATER)
    renewal.renew(directory, ["rooms"], now=LATER)
    assert renewal.retire(directory, "grpc", now=LATER) == 1
    (only,) = read_certificates(certificates.authority_paths(directory, "grpc")[0])
    for name in ("auth", "edge", "rooms"):
        load(directory / f"{name}-cert.pem").verify_directly_issued_by(only)


def test_a_crash_between_the_two_files_leaves_the_old_authority_signing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    path, _ = certificates.authority_paths(directory, "grpc")
    (old,) = read_certificates(path)
    with monkeypatch.context() as patch:
        patch.setattr(renewal, "write_pair", crash)
        with pytest.raises(KeyboardInterrupt):
            renewal.renew_authority(directory, "grpc", now=LATER)
    assert len(read_certificates(path)) == 2
    renewal.renew(directory, ["auth"], now=LATER)
    load(directory / "auth-cert.pem").verify_directly_issued_by(old)
    assert renewal.retire(directory, "grpc", now=LATER) == 1
    assert read_certificates(path) == [old]


def test_the_next_start_renews_what_the_old_authority_signed(directory: Path) -> None:
    renewal.renew_authority(directory, "grpc", now=LATER)
    ensure_stack(directory, now=LATER)
    new = read_certificates(certificates.authority_paths(directory, "grpc")[0])[0]
    load(directory / "rooms-cert.pem").verify_directly_issued_by(new)


def test_the_age_of_trust_counts_from_the_newest_successor(directory: Path) -> None:
    assert renewal.trust_age_s(directory) > renewal.TRUST_S  # there is none to wait for
    renewal.renew_authority(directory, "client")
    assert renewal.trust_age_s(directory, now=datetime.now(UTC)) < 60
    assert renewal.trust_age_s(directory, now=datetime.now(UTC) + timedelta(hours=1)) > 3_500


@pytest.mark.parametrize("work", [renewal.renew_authority, renewal.retire])
def test_authorities_that_are_not_there(tmp_path: Path, work: object) -> None:
    assert callable(work)
    with pytest.raises(ValueError, match="there is no authority grpc-ca here"):
        work(tmp_path, "grpc")
    with pytest.raises(ValueError, match="no authority moon-ca; there are: client-ca, grpc-ca"):
        work(tmp_path, "moon")
