from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest

from deploy.local import certificates as make
from services.edge.client_tls import ALPN, ClientTls, server_context
from tests.helpers import certificates


def test_tls_is_1_3_with_our_protocol() -> None:
    context = server_context(*certificates.shared().server)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert ALPN == "parley/2"


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    certificate, _ = certificates.shared().server
    with pytest.raises(OSError, match="No such file"):
        server_context(certificate, tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(ssl.SSLError):
        server_context(certificate, tmp_path / "bad.pem")


def test_a_renewed_certificate_is_for_the_next_handshake(tmp_path: Path) -> None:
    paths = make.ensure_stack(shutil.copytree(certificates.shared().directory, tmp_path / "c"))
    tls = ClientTls(paths.server_certificate, paths.server_key)
    first = tls.context()
    assert tls.context() is first
    paths.server_key.unlink()
    make.ensure_stack(tmp_path / "c")
    assert tls.context() is first  # nobody has looked yet
    tls._files.refresh()
    second = tls.context()
    assert second is not first
    assert tls.context() is second


def test_files_that_break_between_two_looks_leave_the_context_as_it_was(tmp_path: Path) -> None:
    paths = make.ensure_stack(shutil.copytree(certificates.shared().directory, tmp_path / "c"))
    tls = ClientTls(paths.server_certificate, paths.server_key)
    first = tls.context()
    paths.server_key.unlink()
    make.ensure_stack(tmp_path / "c")
    tls._files.refresh()
    good = paths.server_key.read_bytes()
    paths.server_key.write_bytes(good[:50])
    assert tls.context() is first
    paths.server_key.write_bytes(good)
    assert tls.context() is not first
