from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from deploy.local import certificates as make
from deploy.local import renewal
from services.common import certificates
from services.common.certificates import CertificateError, CertificateFiles
from services.common.clock import FakeClock
from services.common.counters import Counters
from tests.helpers.certificates import shared

if TYPE_CHECKING:
    from collections.abc import Callable


class Home:
    """A directory of certificates of its own, and the files of auth in it."""

    def __init__(self, directory: Path) -> None:
        shutil.copytree(shared().directory, directory)
        self.directory = directory
        self.certificate, self.key = directory / "auth-cert.pem", directory / "auth-key.pem"
        self.ca = directory / "grpc-ca-cert.pem"
        self.files = CertificateFiles(self.certificate, self.key, self.ca)

    def renew(self, *names: str, **options: Any) -> None:
        renewal.renew(self.directory, names or ("auth",), **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "certificates")


def test_files_that_have_not_changed_are_not_read_again(home: Home) -> None:
    first = home.files.current
    with capture_logs() as logs:
        assert home.files.refresh() is first
    assert logs == []


def test_renewed_files_are_taken_and_the_log_says_so_once(home: Home) -> None:
    first = home.files.current
    home.renew()
    with capture_logs() as logs:
        second = home.files.refresh()
        assert home.files.refresh() is second
    assert second.chain == home.certificate.read_bytes() != first.chain
    assert second.private_key == home.key.read_bytes() != first.private_key
    (line,) = logs
    assert (line["event"], line["log_level"], line["days_left"]) == ("certificates were read again", "info", 364)


def test_the_private_key_is_in_no_repr(home: Home) -> None:
    assert "PRIVATE" not in repr(home.files.current)


def _half(path: Path) -> Callable[[Home], None]:
    def write(home: Home) -> None:
        file = home.directory / path
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])

    return write


def _remove(home: Home) -> None:
    home.key.unlink()


def _foreign_key(home: Home) -> None:
    shutil.copy(home.directory / "rooms-key.pem", home.key)


def _other_identity(home: Home) -> None:
    shutil.copy(home.directory / "rooms-key.pem", home.key)
    shutil.copy(home.directory / "rooms-cert.pem", home.certificate)


def _locked_key(home: Home) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(home.key.read_bytes(), None)
    form = serialization.BestAvailableEncryption(b"secret")
    home.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form))


def _expired(home: Home) -> None:
    home.renew(now=datetime.now(UTC) - timedelta(days=366))


def _not_yet_valid(home: Home) -> None:
    home.renew(now=datetime.now(UTC) + timedelta(days=2))


@pytest.mark.parametrize(
    ("break_them", "reason"),
    [
        (_half(Path("auth-cert.pem")), "auth-cert.pem: is not a whole certificate"),
        (_half(Path("auth-key.pem")), "auth-key.pem: is not a whole private key"),
        (_half(Path("grpc-ca-cert.pem")), "grpc-ca-cert.pem: is not a whole certificate"),
        (_remove, "No such file"),
        (_foreign_key, "auth-key.pem: is not the key of"),
        (_other_identity, "is of spiffe://parley/rooms and not of spiffe://parley/auth"),
        (_locked_key, "a whole private key without a password"),
        (_expired, "is not valid at this time"),
        (_not_yet_valid, "is not valid at this time"),
    ],
)
def test_what_cannot_be_right_is_not_used_and_is_said_once(
    home: Home, break_them: Callable[[Home], None], reason: str
) -> None:
    first, kept = home.files.current, home.directory.parent / "kept"
    shutil.copytree(home.directory, kept)
    break_them(home)
    with capture_logs() as logs:
        assert home.files.refresh() is first
        assert home.files.refresh() is first
    (line,) = logs
    assert line["event"] == "certificates cannot be used: those from before stay in use"
    assert line["log_level"] == "warning"
    assert reason in line["reason"]
    shutil.copytree(kept, home.directory, dirs_exist_ok=True)  # copies the times of the files too
    home.renew()
    assert home.files.refresh().chain == home.certificate.read_bytes()


def test_files_that_are_put_back_are_said_to_be_as_they_were(home: Home) -> None:
    away = home.key.rename(home.directory / "away.pem")
    home.files.refresh()
    away.rename(home.key)
    with capture_logs() as logs:
        first = home.files.refresh()
        assert home.files.refresh() is first
    assert [line["event"] for line in logs] == ["certificates are as they were"]


@pytest.mark.parametrize("break_them", [_half(Path("auth-cert.pem")), _remove, _foreign_key])
def test_a_start_with_such_files_is_refused(home: Home, break_them: Callable[[Home], None]) -> None:
    break_them(home)
    with pytest.raises((OSError, CertificateError)):
        CertificateFiles(home.certificate, home.key, home.ca)


def test_all_of_a_process_look_at_the_same_files(home: Home, tmp_path: Path) -> None:
    config = shared().config("auth", tmp_path, certificate=home.certificate, private_key=home.key, ca=home.ca)
    assert certificates.files_of(config) is certificates.files_of(config)
    assert certificates.files_of(config) is not certificates.files_of(shared().config("auth", tmp_path))


def test_each_certificate_has_a_gauge_of_its_end(home: Home) -> None:
    counters = Counters()
    certificates.report(counters, home.files)
    (family,) = counters.families()
    assert family.name == "parley.certificate.not_after"
    ends = {dict(key)["certificate"]: member.value for key, member in family.members.items()}  # type: ignore[union-attr]
    assert ends == {path.name: end for path, end in home.files.current.not_after.items()}
    assert ends.keys() == {"auth-cert.pem", "grpc-ca-cert.pem"}
    home.renew(now=datetime.now(UTC) - timedelta(days=100))
    home.files.refresh()
    (after,) = (m.value for key, m in family.members.items() if dict(key)["certificate"] == "auth-cert.pem")  # type: ignore[union-attr]
    assert ends["auth-cert.pem"] - after == pytest.approx(100 * 86_400, abs=43_200)


async def test_the_watch_warns_each_day_and_takes_what_is_renewed(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    shutil.copytree(shared().directory, directory)
    renewal.renew(directory, ["auth"], now=datetime.now(UTC) - timedelta(days=363))
    home_files = CertificateFiles(directory / "auth-cert.pem", directory / "auth-key.pem")
    clock = FakeClock(datetime.now(UTC).timestamp())
    with capture_logs() as logs:
        watching = asyncio.create_task(certificates.watch(home_files, clock))
        await clock.advance(0)
        assert [(line["event"], line["days_left"]) for line in logs] == [("certificate expires soon", 1)]
        await clock.advance(3600)
        assert len(logs) == 1
        for _ in range(3):
            await clock.advance(86_400)
        told = [(line["event"], line["log_level"]) for line in logs[1:]]
        assert told[0] == ("certificate expires soon", "warning")
        assert told[-1] == ("certificate has expired", "error")
        logs.clear()
        make.ensure_stack(directory)
        await clock.advance(2)
        assert [line["event"] for line in logs] == ["certificates were read again"]
        logs.clear()
        for _ in range(3):
            await clock.advance(86_400)
        assert logs == []
        watching.cancel()
