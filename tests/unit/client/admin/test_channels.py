"""The operators' channels over real mutual TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from client.admin import main
from tests.helpers import certificates


class Accounts(auth_pb2_grpc.AuthAdminServiceServicer):
    def ListAccounts(  # noqa: N802
        self, request: auth_pb2.ListAccountsRequest, context: grpc.ServicerContext
    ) -> auth_pb2.ListAccountsResponse:
        peer = context.auth_context()["peer_spiffe_id"][0].decode()
        return auth_pb2.ListAccountsResponse(accounts=[auth_pb2.Account(username=peer)])


class Site:
    """A home whose stack.json leads to one auth service, with the identity of some service."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.material = certificates.shared()
        (home / "run").mkdir()
        (home / "certificates").mkdir()
        for name, path in zip(("cert", "key"), self.material.pair("admin/alice"), strict=True):
            (home / "certificates" / f"admin-alice-{name}.pem").write_bytes(path.read_bytes())
        self._servers: list[grpc.Server] = []

    def serve(self, *, identity: str = "auth") -> None:
        certificate, key = self.material.pair(identity)
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())], self.material.grpc_ca.read_bytes(), require_client_auth=True
        )
        server = grpc.server(ThreadPoolExecutor(1))
        auth_pb2_grpc.add_AuthAdminServiceServicer_to_server(Accounts(), server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        self._servers.append(server)
        self.describe([f"127.0.0.1:{port}"])

    def describe(self, targets: list[str], *, ca: Path | None = None) -> None:
        processes = [{"name": f"auth-{n}", "pid": 1, "grpc": target} for n, target in enumerate(targets, start=1)]
        description = {"client_ca": "", "grpc_ca": str(ca or self.material.grpc_ca), "processes": processes}
        (self.home / "run" / "stack.json").write_text(json.dumps(description))

    def run(self, *argv: str, identity: str = "alice") -> int:
        return main(["--home", str(self.home), "--identity", identity, *argv])

    def close(self) -> None:
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_an_operator_shows_who_they_are(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve()
    assert site.run("accounts", "list") == 0
    assert "spiffe://parley/admin/alice" in capsys.readouterr().out


def test_a_service_of_another_kind_is_not_believed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve(identity="rooms")
    assert site.run("accounts", "list") == 1
    assert "auth-1 does not answer" in capsys.readouterr().err


def test_another_authority_is_not_believed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve()
    target = json.loads((site.home / "run" / "stack.json").read_text())["processes"][0]["grpc"]
    site.describe([target], ca=certificates.foreign().grpc_ca)
    assert site.run("accounts", "list") == 1
    assert "unreachable" in capsys.readouterr().err


def test_a_process_that_does_not_answer_is_passed_over(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve()
    target = json.loads((site.home / "run" / "stack.json").read_text())["processes"][0]["grpc"]
    site.describe(["127.0.0.1:1", target])
    assert site.run("accounts", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["username"] == "spiffe://parley/admin/alice"


def test_an_identity_that_is_not_there(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.serve()
    assert site.run("accounts", "list", identity="eve") == 1
    assert "`parley certs admin eve` makes" in capsys.readouterr().err


def test_no_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path), "stats"]) == 1
    assert "No stack is up here" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text("{")
    assert main(["--home", str(tmp_path), "stats"]) == 1
    assert "stack.json" in capsys.readouterr().err
