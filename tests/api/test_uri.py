"""Which libvirt URIs are allowed: nothing that libvirt would read differently or that runs a program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.uri import InvalidURIError, Transport, parse_uri, refusal

ALLOWED = [
    "qemu:///system",
    "qemu:///session",
    "qemu+unix:///system",
    "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
    "qemu+unix:///session?socket=/tmp/a_b/run@1/sock",
    "qemu+tls://host/system",
    "qemu+tls://kvm-1.example.org:16514/system?pkipath=/etc/varve/pki",
    "qemu+ssh://host/system",
    "qemu+ssh://varve@host:22/system?keyfile=/keys/id&known_hosts=/keys/known_hosts",
    "qemu+ssh://varve@[fd00::1]:65535/session?socket=/run/sock&known_hosts_verify=normal",
]

PROGRAMS = [
    "qemu+ssh://host/system?command=/tmp/evil",
    "qemu+ssh://host/system?keyfile=/k&command=/tmp/evil",
    "qemu+ssh://host/system?COMMAND=/tmp/evil",
    "qemu+ssh://host/system?keyfile=/k;command=/tmp/evil",
    "qemu+ssh://host/system?c%6fmmand=/tmp/evil",
    "qemu+ssh://host/system?keyfile=/k&%63ommand=/tmp/evil",
    "qemu+ssh://host/system?netcat=/tmp/evil",
    "qemu+ssh://host/system?proxy=netcat",
    "qemu+ssh://host/system?sshauth=agent",
    "qemu+ext://host/system?command=/tmp/evil",
    "qemu+libssh://host/system?proxy=native",
    "qemu+libssh2://host/system",
    "qemu+unix:///system?command=/tmp/evil",
    "qemu:///system?command=/tmp/evil",
    "qemu:///embed?root=/tmp/evil",
    "qemu+ssh://-oProxyCommand=evil/system",
    "qemu+ssh://-oProxyCommand@host/system",
    "qemu+ssh://host/system?keyfile=-oProxyCommand",
    "qemu+ssh://host/system?socket=/a$(evil)",
    "qemu+ssh://host/system?socket=/a'evil'",
    "qemu+ssh://host/system?keyfile=/k\n&command=/tmp/evil",
    "qemu+ssh://host/system\n",
    "qemu+ssh://host/system#?command=/tmp/evil",
    "qemu+ssh://host/system?=&command=/tmp/evil",
    "qemu+ssh://host/system?&command=/tmp/evil",
    "qemu+ssh://host/system?keyfile=/k&&command=/tmp/evil",
]

HINTED = [
    ("qemu+tcp://host/system", "qemu+tls://host/system"),
    ("qemu://host/system", "the transport must be written out"),
    ("qemu+ext://host/system", "qemu+ssh://user@host/system"),
    ("qemu+libssh2://host/system", "qemu+ssh://user@host/system"),
    ("qemu+tls://host/system?no_verify=1", "always verified"),
    ("qemu+ssh://host/system?known_hosts_verify=ignore", "always verified"),
    ("qemu+ssh://host/system?known_hosts_verify=auto", "always verified"),
    ("qemu+ssh://host/system?no_tty=1", "leave out no_tty="),
    ("qemu+ssh://user:secret@host/system", "keyfile="),
    ("qemu+ssh://host/system?keyfile=/a&keyfile=/b", "written twice"),
    ("qemu+ssh://host/system?%6b=/a", "percent-encoding"),
    ("qemu+ssh://host/system?command=/a", "leave them out"),
    ("xen:///system", "qemu:///system"),
    ("qemu+tls://host:65536/system", "qemu+tls://host/system"),
    ("qemu+tls://host:0/system", "qemu+tls://host/system"),
    ("qemu+ssh:///system", "qemu+ssh://user@host/system"),
    ("", "qemu:///system"),
    ("qemu:///system?" + "x" * 2000, "longer than 1024"),
]


@pytest.mark.parametrize("uri", ALLOWED)
def test_an_allowed_uri_is_taken_apart_without_loss(uri: str) -> None:
    parsed = parse_uri(uri)
    assert parsed.text == uri
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    scheme = "qemu" if parsed.transport is Transport.LOCAL else f"qemu+{parsed.transport}"
    user = f"{parsed.user}@" if parsed.user else ""
    port = f":{parsed.port}" if parsed.port else ""
    query = "&".join(f"{name}={value}" for name, value in parsed.parameters)
    assert f"{scheme}://{user}{host}{port}{parsed.path}{'?' if query else ''}{query}" == uri


@pytest.mark.parametrize("uri", PROGRAMS)
def test_a_hypervisor_uri_that_would_run_a_program_is_refused(uri: str) -> None:
    with pytest.raises(InvalidURIError):
        parse_uri(uri)


@pytest.mark.parametrize(("uri", "hint"), HINTED)
def test_a_refusal_says_what_to_write_instead_and_does_not_repeat_the_uri(uri: str, hint: str) -> None:
    reason = refusal(uri)
    assert reason is not None
    assert hint in reason
    assert "secret" not in reason


def test_ssh_never_asks_at_a_terminal() -> None:
    assert parse_uri("qemu+ssh://h/system").connect_to == "qemu+ssh://h/system?no_tty=1"
    with_key = parse_uri("qemu+ssh://h/system?keyfile=/k")
    assert with_key.connect_to == "qemu+ssh://h/system?keyfile=/k&no_tty=1"
    assert parse_uri("qemu:///system").connect_to == "qemu:///system"


def test_parameters_are_read_by_name() -> None:
    parsed = parse_uri("qemu+ssh://h/session?keyfile=/k")
    assert (parsed.parameter("keyfile"), parsed.parameter("socket"), parsed.session) == ("/k", None, True)


_TOKENS = (
    "qemu +ssh +tls +unix +ext :// h /system ? & ; = /k %63 command keyfile socket known_hosts @ : 22 # ' "
    "netcat pkipath no_verify=1 [ ]"
)
_PIECES = st.sampled_from([*_TOKENS.split(), "\n", " "])


@given(st.lists(_PIECES, max_size=14).map("".join))
def test_whatever_is_allowed_has_only_listed_parameters(uri: str) -> None:
    try:
        parsed = parse_uri(uri)
    except InvalidURIError:
        return
    allowed = {
        Transport.LOCAL: set(),
        Transport.UNIX: {"socket"},
        Transport.TLS: {"pkipath"},
        Transport.SSH: {"keyfile", "known_hosts", "known_hosts_verify", "socket"},
    }[parsed.transport]
    assert {name for name, _ in parsed.parameters} <= allowed
    assert not set(uri) & set(";%#'\n ")
    assert all(value.startswith("/") or value == "normal" for _, value in parsed.parameters)
