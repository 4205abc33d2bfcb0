from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.admission import Admission, address_group


def make(connections_max: int = 10, per_address: int = 3, busy: set[str] | None = None) -> Admission[str]:
    busy = busy if busy is not None else set()
    return Admission(
        connections_max=connections_max, anonymous_per_address_max=per_address, is_busy=lambda one: one in busy
    )


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_addresses_are_grouped_as_customers_have_them(host: str, group: str) -> None:
    assert address_group(host) == group


def test_the_oldest_of_an_address_goes_for_the_newest() -> None:
    admission = make(per_address=3)
    for name in ("a1", "a2", "b1", "a3"):
        assert admission.arrive(name, name[0]) == []
    assert admission.arrive("a4", "a") == ["a1"]
    assert admission.arrive("a5", "a") == ["a2"]
    assert admission.count == 4


def test_who_is_logged_in_does_not_count_against_the_address() -> None:
    admission = make(per_address=2)
    for name in ("a1", "a2"):
        admission.arrive(name, "a")
        admission.log_in(name)
    assert admission.arrive("a3", "a") == []
    assert admission.arrive("a4", "a") == []
    assert admission.anonymous_count == 2


def test_who_logs_out_is_the_youngest_again() -> None:
    admission = make(per_address=2)
    admission.arrive("a1", "a")
    admission.log_in("a1")
    admission.arrive("a2", "a")
    admission.log_out("a1")
    assert admission.arrive("a3", "a") == ["a2"]


def test_a_login_under_way_is_not_interrupted() -> None:
    busy = {"a1"}
    admission = make(per_address=2, busy=busy)
    admission.arrive("a1", "a")
    admission.arrive("a2", "a")
    assert admission.arrive("a3", "a") == ["a2"]
    busy |= {"a3"}
    assert admission.arrive("a4", "a") is None
    assert admission.count == 2


def test_at_the_limit_of_all_the_oldest_anonymous_one_goes() -> None:
    admission = make(connections_max=3, per_address=0)
    for name in ("a", "b", "c"):
        admission.arrive(name, name)
    admission.log_in("a")
    assert admission.arrive("d", "d") == ["b"]
    admission.log_in("c")
    admission.log_in("d")
    assert admission.arrive("e", "e") is None
    admission.leave("a")
    assert admission.arrive("f", "f") == []


def test_leaving_twice_is_leaving_once() -> None:
    admission = make()
    admission.arrive("a", "a")
    admission.leave("a")
    admission.leave("a")
    assert admission.count == admission.anonymous_count == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "in", "leave"]), st.integers(0, 30), st.integers(0, 3)),
        max_size=200,
    )
)
def test_no_limit_is_ever_passed(steps: list[tuple[str, int, int]]) -> None:
    admission: Admission[int] = Admission(
        connections_max=8, anonymous_per_address_max=3, is_busy=lambda one: one % 5 == 0
    )
    here: dict[int, tuple[int, bool]] = {}  # number -> group, logged in
    for number, (step, which, group) in enumerate(steps):
        if step == "arrive":
            victims = admission.arrive(number, str(group))
            for victim in victims or ():
                assert not here.pop(victim)[1]
                assert victim % 5 != 0
            if victims is not None:
                here[number] = (group, False)
        elif here:
            chosen = list(here)[which % len(here)]
            if step == "in":
                admission.log_in(chosen)
                here[chosen] = (here[chosen][0], True)
            else:
                admission.leave(chosen)
                del here[chosen]
        anonymous = [group for group, is_in in here.values() if not is_in]
        assert admission.count == len(here) <= 8
        assert admission.anonymous_count == len(anonymous)
        assert all(anonymous.count(group) <= 3 for group in anonymous)
