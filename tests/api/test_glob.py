"""Patterns and access rules."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.api import glob
from controller.api.hypervisor import AccessRule, HypervisorSpec

_TEXT = st.text(alphabet="ab*-/?[]\n", max_size=12)


def _by_regex(pattern: str, text: str) -> bool:
    shape = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(shape, text, re.DOTALL) is not None


@given(_TEXT, _TEXT)
def test_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    assert glob.matches(pattern, text) == _by_regex(pattern, text)


@given(st.lists(st.tuples(_TEXT.map(lambda text: text.replace("*", "")), _TEXT), min_size=1, max_size=4))
def test_a_star_stands_for_anything(parts: list[tuple[str, str]]) -> None:
    pattern = "*".join(literal for literal, _ in parts) + "*"
    assert glob.matches(pattern, "".join(literal + filling for literal, filling in parts))


def test_a_pattern_made_to_be_slow_is_not() -> None:
    assert not glob.matches("a*" * 100 + "b", "a" * 50_000)


def _spec(*rules: tuple[list[str], list[str]]) -> HypervisorSpec:
    access = [{"namespaces": namespaces, "domains": domains} for namespaces, domains in rules]
    return HypervisorSpec.model_validate({"uri": "qemu:///system", "access": access})


@pytest.mark.parametrize(
    ("namespace", "domain", "allowed"),
    [
        ("shop", "web-1", True),
        ("shop", "db-1", True),
        ("shop", "db-10", False),
        ("shop", "web", False),
        ("staging-eu", "web-2", True),
        ("staging", "web-2", False),
        ("vm-admins", "anything at all", True),
        ("default", "web-1", False),
        ("SHOP", "web-1", False),
    ],
)
def test_access_of_the_sample(namespace: str, domain: str, allowed: bool) -> None:
    spec = _spec((["shop", "staging-*"], ["web-*", "db-1"]), (["vm-admins"], ["*"]))
    assert spec.allows(namespace, domain) is allowed


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_rules_allow_nothing(namespace: str, domain: str) -> None:
    assert not _spec().allows(namespace, domain)


_NAME = st.text(alphabet="ab-", min_size=1, max_size=4).filter(lambda name: name.strip("-") == name)
_PATTERN = st.sampled_from(["a", "b", "a*", "*b", "*", "ab"])
_RULES = st.lists(st.tuples(st.lists(_PATTERN, min_size=1), st.lists(_PATTERN, min_size=1)), max_size=3)


@given(_RULES, _NAME, _NAME)
def test_a_domain_is_allowed_only_by_one_rule_that_gives_both(
    rules: list[tuple[list[str], list[str]]], namespace: str, domain: str
) -> None:
    expected = any(
        any(_by_regex(one, namespace) for one in namespaces)
        and any(_by_regex(one, domain) for one in domains)
        for namespaces, domains in rules
    )
    assert _spec(*rules).allows(namespace, domain) is expected


@given(_RULES, _RULES, _NAME, _NAME)
def test_more_rules_never_allow_less(
    some: list[tuple[list[str], list[str]]],
    more: list[tuple[list[str], list[str]]],
    namespace: str,
    domain: str,
) -> None:
    assert not _spec(*some).allows(namespace, domain) or _spec(*some, *more).allows(namespace, domain)


@pytest.mark.parametrize("field", ["namespaces", "domains"])
def test_a_rule_without_names_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        AccessRule.model_validate({"namespaces": ["a"], "domains": ["b"], field: []})
