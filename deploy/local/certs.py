"""`parley certs`: makes, shows and renews the certificates of a stack."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from deploy.local.failures import StartError
from deploy.local.layout import Layout

UNUSABLE = 1  # the exit status of `show` where a certificate does not serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `parley certs`."""
    parser.add_argument("--home", type=Path, default=Path(), metavar="DIR", help="the stack's home (default: .)")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    make = kinds.add_parser("make", help="make what is missing, or about to expire, of a whole stack")
    make.add_argument(
        "--host",
        action="append",
        default=[],
        help="a name or address by which clients reach the edges; may be repeated",
    )
    admin = kinds.add_parser("admin", help="make an operator's identity")
    admin.add_argument("name", metavar="NAME", help="the operator")
    show = kinds.add_parser("show", help="what there is, and how long it lasts; status 1 where one does not serve")
    show.add_argument("--json", action="store_true", help="for programs")
    renew = kinds.add_parser("renew", help="give identities new keys and certificates, while the stack runs")
    renew.add_argument(
        "names", nargs="*", metavar="NAME", help="as in `show`, or assertions; an authority gets a successor"
    )
    renew.add_argument(
        "--all", action="store_true", help="all identities, and the key of assertions (not the authorities)"
    )
    retire = kinds.add_parser("retire", help="trust the predecessor of an authority or key no more")
    retire.add_argument("authority", choices=("client-ca", "grpc-ca", "assertions"), help="which")
    retire.add_argument("--now", action="store_true", help="at once: whoever still needs it is cut off for a while")


def run(parsed: argparse.Namespace) -> int:
    """Does what was asked, and returns the exit status. Raises StartError."""
    directory = Layout(parsed.home.resolve()).certificates
    try:
        status: int = _COMMANDS[parsed.kind](directory, parsed)
    except (ValueError, OSError) as error:
        raise StartError(f"certs: {error}") from error
    return status


def _make(directory: Path, parsed: argparse.Namespace) -> int:
    from deploy.local import assertion_keys, certificates

    certificates.ensure_stack(directory, hosts=tuple(parsed.host))
    assertion_keys.ensure(directory)
    return _show(directory, argparse.Namespace(json=False))


def _admin(directory: Path, parsed: argparse.Namespace) -> int:
    from deploy.local import certificates

    for path in certificates.make_admin(directory, parsed.name):
        print(path)
    return 0


def _show(directory: Path, parsed: argparse.Namespace) -> int:
    from deploy.local import certificate_list

    entries = certificate_list.read(directory)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
    elif entries:
        print(certificate_list.table(entries))
    else:
        raise ValueError(f"{directory}: there are no certificates; `parley up` or `parley certs make` makes them")
    return 0 if all(entry.is_usable for entry in entries) else UNUSABLE


def _renew(directory: Path, parsed: argparse.Namespace) -> int:
    from deploy.local import assertion_keys, renewal

    if parsed.all == bool(parsed.names):
        raise ValueError("renew: name what to renew, or say --all")
    names = [identity.name for identity in renewal.identities(directory)] if parsed.all else parsed.names
    authorities = [name.removesuffix("-ca") for name in names if name.endswith("-ca")]
    for name in authorities:
        print(f"{renewal.renew_authority(directory, name)}: holds a successor, which signs from now on; then")
        print(f"`parley certs renew --all`, and `parley certs retire {name}-ca` when nobody needs the old one")
    if assertion_keys.NAME in names or parsed.all:
        _renew_assertion_key(directory)
    rest = [name for name in names if not name.endswith("-ca") and name != assertion_keys.NAME]
    if not rest:
        return 0
    if (wait_s := renewal.TRUST_S - renewal.trust_age_s(directory)) > 0:
        print(f"a new authority signs: its trust gets {wait_s:.0f} s to spread")
        time.sleep(wait_s)
    for identity in renewal.renew(directory, rest):
        print(identity.certificate)
    return 0


def _renew_assertion_key(directory: Path) -> None:
    from deploy.local import assertion_keys, renewal

    successor = assertion_keys.trust_successor(directory)
    print(f"a new key signs assertions: its trust gets {renewal.TRUST_S:.0f} s to spread")
    time.sleep(renewal.TRUST_S)
    print(assertion_keys.use(directory, successor))


def _retire(directory: Path, parsed: argparse.Namespace) -> int:
    from deploy.local import assertion_keys, renewal

    if parsed.authority == assertion_keys.NAME:
        wait_s = assertion_keys.LIFE_S - assertion_keys.use_age_s(directory)
        if wait_s > 0 and not parsed.now:
            raise ValueError(f"retire: what the old key signed is good for {wait_s:.0f} s yet; --now if it was stolen")
        count = assertion_keys.retire(directory)
    else:
        if (wait_s := renewal.TRUST_S - renewal.use_age_s(directory)) > 0 and not parsed.now:
            print(f"the new certificates get {wait_s:.0f} s to be in use everywhere")
            time.sleep(wait_s)
        count = renewal.retire(directory, parsed.authority.removesuffix("-ca"))
    print(f"{parsed.authority}: {count or 'no'} predecessor{'' if count == 1 else 's'} retired")
    return 0


_COMMANDS = {"make": _make, "admin": _admin, "show": _show, "renew": _renew, "retire": _retire}
