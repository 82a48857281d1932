"""Which libvirt URIs a Hypervisor may have.

A libvirt URI can run programs (``command=``, ``netcat=``, the transport ext, proxies of libssh) and can turn
off the check of the server's identity, so this is a list of what is allowed, never of what is forbidden.
libvirt's own parsing (src/util/viruri.c, src/remote/remote_driver.c) is what must not be fooled: it decodes
percent-encoding in names, ignores their case, takes ``;`` for ``&``, lets one of two equal parameters win and
passes unknown ones on to the daemon. Each of these is refused, so that an accepted URI reads the same for us
and for libvirt.

The same tables make the CEL rules of the CRD and :func:`parse_uri`, which is asked again before each
connection: a CRD may be older than the controller.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from controller.api.schema import JsonObject, rule

URI_LENGTH = 1024

_PATH = r"/[A-Za-z0-9._/+@-]+"
_HOST = r"([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_USER = r"[A-Za-z_][A-Za-z0-9._-]{0,63}"
_SSH_PARAMETER = rf"((keyfile|known_hosts|socket)={_PATH}|known_hosts_verify=normal)"

FORMS = (
    r"qemu:///(system|session)",
    rf"qemu\+unix:///(system|session)(\?socket={_PATH})?",
    rf"qemu\+tls://{_HOST}(:{_PORT})?/system(\?pkipath={_PATH})?",
    rf"qemu\+ssh://({_USER}@)?{_HOST}(:{_PORT})?/(system|session)(\?{_SSH_PARAMETER}(&{_SSH_PARAMETER})*)?",
)
"""The whole of what is allowed, as regular expressions that each fit a whole URI."""

ALLOWED = f"({'|'.join(FORMS)})"

_REPEATED = "|".join(
    rf".*[?&]{name}=.*&{name}=.*" for name in ("keyfile", "known_hosts", "known_hosts_verify", "socket")
)

_SHAPES = (
    "qemu:///system, qemu+unix:///system?socket=/path, qemu+tls://host/system?pkipath=/dir "
    "or qemu+ssh://user@host/system?keyfile=/path&known_hosts=/path"
)

HINTS = (
    (
        r".*%.*",
        "percent-encoding is refused, because it can hide what a parameter is: write plain characters",
    ),
    (
        r"[a-z]+\+(ext|libssh2?)(:.*)?",
        "the transports ext, libssh and libssh2 can run programs and are refused: "
        "write qemu+ssh://user@host/system?keyfile=/path&known_hosts=/path",
    ),
    (
        r"[a-z]+\+tcp(:.*)?",
        "plain tcp is neither encrypted nor authenticated and is refused: write qemu+tls://host/system",
    ),
    (
        r"qemu://[^/].*",
        "the transport must be written out: write qemu+tls://host/system or qemu+ssh://user@host/system",
    ),
    (
        r".*[?&;](command|netcat|proxy|name|auth|authfile|sshauth|mode)=.*",
        "the parameters command=, netcat= and proxy= would run a program, and name=, auth=, authfile=, "
        "sshauth= and mode= change who is spoken to: leave them out; keys are named by keyfile=, "
        "known_hosts= and pkipath=",
    ),
    (
        r".*[?&;](no_verify|no_sanity|tls_priority)=.*|.*[?&;]known_hosts_verify=(ignore|auto).*",
        "the other side's identity is always verified: leave out no_verify=, no_sanity=, tls_priority= and "
        "known_hosts_verify=ignore|auto, and name the keys to trust with known_hosts= or pkipath=",
    ),
    (
        r".*[?&;]no_tty=.*",
        "nothing ever asks for a password here (no_tty=1 is always set): leave out no_tty=",
    ),
    (r"[^/]*//[^/@]*:[^/@]*@.*", "a password in the URI is refused: name a key with keyfile="),
    (_REPEATED, "a parameter is written twice: write it once"),
)
"""What is refused and what to write instead; the first that fits speaks. Case does not matter."""

_OTHERWISE = f"this libvirt URI is not allowed: write {_SHAPES}"


class Transport(StrEnum):
    """How the daemon is reached."""

    LOCAL = "local"
    UNIX = "unix"
    TLS = "tls"
    SSH = "ssh"


class InvalidURIError(ValueError):
    """The URI is refused; the message says what to write instead and does not repeat the URI."""


@dataclass(frozen=True)
class HypervisorURI:
    """A URI that is allowed, and its parts."""

    text: str
    transport: Transport
    user: str
    host: str
    port: int | None
    path: str
    parameters: tuple[tuple[str, str], ...]

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, or None."""
        return dict(self.parameters).get(name)

    @property
    def session(self) -> bool:
        """Whether it names a user's own daemon instead of the system's."""
        return self.path == "/session"

    @property
    def connect_to(self) -> str:
        """What to give to libvirt: the text, with ssh kept from asking for a password at a terminal."""
        if self.transport is not Transport.SSH:
            return self.text
        return f"{self.text}{'&' if self.parameters else '?'}no_tty=1"


_PARTS = re.compile(
    r"qemu(?:\+(?P<transport>[a-z]+))?://(?:(?P<user>[^@/]+)@)?(?P<host>\[[^\]]*\]|[^:/?]*)(?::(?P<port>[0-9]+))?"
    r"(?P<path>/[a-z]+)(?:\?(?P<query>.*))?"
)


def refusal(text: str) -> str | None:
    """Say why ``text`` is not allowed and what to write instead, or None when it is allowed."""
    if len(text) > URI_LENGTH:
        return f"the URI is longer than {URI_LENGTH} characters"
    if re.fullmatch(ALLOWED, text) and not re.fullmatch(_REPEATED, text):
        return None
    return next((hint for shape, hint in HINTS if re.fullmatch(f"(?i:{shape})", text, re.DOTALL)), _OTHERWISE)


def parse_uri(text: str) -> HypervisorURI:
    """Take an allowed URI apart. Raises InvalidURIError for any other, before libvirt ever sees it."""
    reason = refusal(text)
    if reason is not None:
        raise InvalidURIError(reason)
    parts = _PARTS.fullmatch(text)
    assert parts is not None, "what is allowed has the shape of a URI"  # noqa: S101 - an invariant of two tables above
    query = parts["query"]
    pairs = (pair.partition("=") for pair in query.split("&")) if query else ()
    return HypervisorURI(
        text=text,
        transport=Transport(parts["transport"] or Transport.LOCAL),
        user=parts["user"] or "",
        host=parts["host"].strip("[]"),
        port=int(parts["port"]) if parts["port"] else None,
        path=parts["path"],
        parameters=tuple((name, value) for name, _, value in pairs),
    )


def uri_rule() -> JsonObject:
    """The CEL rule of ``spec.uri``: the same tables, in the API server."""

    def fits(shape: str) -> str:
        return f"self.matches({json.dumps(f'^(?is:{shape})$')})"

    message = json.dumps(_OTHERWISE)
    for shape, hint in reversed(HINTS):
        message = f"{fits(shape)} ? {json.dumps(hint)} : ({message})"
    allowed = f"self.matches({json.dumps(f'^{ALLOWED}$')}) && !self.matches({json.dumps(f'^({_REPEATED})$')})"
    return rule(allowed, _OTHERWISE, message_expression=message)
