"""Generated sources, layers and journals: every protocol, odd characters, whatever XML can carry."""

from __future__ import annotations

from hypothesis import strategies as st
from lxml import etree

from controller.chain.disk import Layer
from controller.chain.journal import (
    Approved,
    Attempt,
    DiskJournal,
    Drift,
    Journal,
    Known,
    Operation,
    OperationKind,
    Owner,
    Point,
    Removal,
)
from controller.chain.source import Source

TEXT = st.text(
    st.characters(
        min_codepoint=0x20,
        max_codepoint=0x1F6FF,
        exclude_categories=("Cs", "Cc"),
        exclude_characters="\ufffe\uffff",
    ),
    max_size=20,
)
"""What an XML attribute can hold apart from white space, which has its own test."""

NAME = TEXT.map(lambda text: text.replace("/", "")).filter(lambda text: text not in {"", ".", ".."})
_PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
_PORT = st.integers(1, 65535).map(str)
_HOST_NAME = (
    st.from_regex(r"[a-z0-9A-Z_.-]{1,12}", fullmatch=True)
    | st.ip_addresses().map(str)
    | NAME.filter(lambda name: not name.startswith("["))
)
_HOST = st.fixed_dictionaries(
    {"name": _HOST_NAME}, optional={"port": _PORT, "transport": st.sampled_from(["tcp", "rdma"])}
)
_UNIX = st.fixed_dictionaries({"transport": st.just("unix"), "socket": _PATH})
_UUID = "11111111-2222-4333-8444-555555555555"

Child = tuple[str, dict[str, str], tuple["Child", ...]]
"""Tag, attributes and children of an element; the attribute ``text()`` is its text."""


def _child(
    tag: str, attributes: st.SearchStrategy[dict[str, str]], *inner: Child
) -> st.SearchStrategy[Child]:
    return attributes.map(lambda found: (tag, found, inner))


_YES_NO = st.sampled_from(["yes", "no"])
_SECRET: Child = ("secret", {"type": "ceph", "uuid": _UUID}, ())
_PASSPHRASE: Child = ("secret", {"type": "passphrase", "uuid": _UUID}, ())
_ACCESS = {
    "auth": _child("auth", st.fixed_dictionaries({"username": NAME}), _SECRET),
    "encryption": _child(
        "encryption", st.fixed_dictionaries({"format": st.sampled_from(["luks", "luks2"])}), _PASSPHRASE
    ),
    "initiator": NAME.map(lambda iqn: ("initiator", {}, (("iqn", {"name": iqn}, ()),))),
    "snapshot": _child("snapshot", st.fixed_dictionaries({"name": NAME})),
    "config": _child("config", st.fixed_dictionaries({"file": _PATH})),
    "reservations": _child(
        "reservations",
        st.just({"managed": "no"}),
        ("source", {"type": "unix", "path": "/run/pr.sock", "mode": "client"}, ()),
    ),
    "ssl": _child("ssl", st.fixed_dictionaries({"verify": _YES_NO})),
    "cookies": st.tuples(NAME, TEXT.filter(str.strip)).map(
        lambda two: ("cookies", {}, (("cookie", {"name": two[0], "text()": two[1]}, ()),))
    ),
    "readahead": _child("readahead", st.fixed_dictionaries({"size": _PORT})),
    "timeout": _child("timeout", st.fixed_dictionaries({"seconds": _PORT})),
    "reconnect": _child("reconnect", st.fixed_dictionaries({"delay": _PORT})),
    "identity": _child("identity", st.fixed_dictionaries({"user": NAME, "group": NAME})),
    "slices": st.tuples(_PORT, _PORT).map(
        lambda two: ("slices", {}, (("slice", {"type": "storage", "offset": two[0], "size": two[1]}, ()),))
    ),
    "seclabel": _child("seclabel", st.fixed_dictionaries({"model": st.just("dac"), "relabel": _YES_NO})),
}
"""What a ``<source>`` may hold besides its hosts (libvirt, domain XML), by name."""

_MAY_HOLD = {
    "file": ("seclabel", "encryption", "slices"),
    "block": ("seclabel", "encryption", "reservations", "slices"),
    "dir": (),
    "volume": ("seclabel", "encryption"),
    "gluster": ("slices",),
    "nbd": ("reconnect", "slices", "encryption"),
    "rbd": ("auth", "snapshot", "config", "encryption"),
    "iscsi": ("auth", "initiator", "reservations"),
    "http": ("auth", "cookies", "readahead", "timeout"),
    "https": ("auth", "ssl", "cookies", "readahead", "timeout"),
    "ftp": ("readahead",),
    "ssh": (),
    "nfs": ("identity",),
    "sheepdog": (),
}
NETWORK = tuple(_MAY_HOLD)[4:]
"""Every protocol that has a form of its own."""


def _append(parent: etree._Element, child: Child) -> None:
    tag, attributes, inner = child
    made = etree.SubElement(parent, tag, {k: v for k, v in attributes.items() if k != "text()"})
    made.text = attributes.get("text()")
    for one in inner:
        _append(made, one)


@st.composite
def _spelled(
    draw: st.DrawFn, kind: str, form: str, attributes: dict[str, str], hosts: tuple[dict[str, str], ...] = ()
) -> tuple[str, str]:
    """The type and the element, with any of what may be in it."""
    element = etree.Element("source", attributes)
    for host in hosts:
        etree.SubElement(element, "host", host)
    for name in _MAY_HOLD[form]:
        if draw(st.booleans()):
            _append(element, draw(_ACCESS[name]))
    return kind, etree.tostring(element, encoding="unicode")


@st.composite
def _network(draw: st.DrawFn) -> tuple[str, str]:
    protocol = draw(st.sampled_from(NETWORK))
    name = draw(st.lists(NAME, min_size=1, max_size=3).map("/".join))
    attributes = {"protocol": protocol, "name": name}
    if protocol == "nbd":
        optional = {"tls": _YES_NO, "tlsHostname": NAME}
        attributes |= draw(st.fixed_dictionaries({}, optional=optional))
        if draw(st.booleans()):
            del attributes["name"]  # the default export
    if protocol in {"http", "https"} and draw(st.booleans()):
        attributes["query"] = draw(TEXT.filter(bool))
    one = st.lists(_UNIX, min_size=1, max_size=1)
    hosts = draw(one if protocol == "nbd" and draw(st.booleans()) else st.lists(_HOST | _UNIX, max_size=3))
    return draw(_spelled("network", protocol, attributes, tuple(hosts)))


def _local(kind: str, **attributes: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    return st.fixed_dictionaries(attributes).flatmap(lambda found: _spelled(kind, kind, found))


SPELLINGS: st.SearchStrategy[tuple[str, str]] = st.one_of(
    _local("file", file=_PATH),
    _local("block", dev=_PATH),
    _local("dir", dir=_PATH),
    _local("volume", pool=NAME, volume=NAME),
    _network(),
    _network(),
)
"""The type and the ``<source>`` element as text."""

SOURCES = SPELLINGS.map(lambda two: Source.from_element(two[0], etree.fromstring(two[1])))
LAYERS = st.builds(Layer, SOURCES, st.sampled_from(["qcow2", "raw", ""]))
OWNERS = st.builds(Owner, NAME, NAME, NAME)
_OWNERS = st.lists(OWNERS, max_size=3, unique=True).map(tuple)
_COUNT = st.integers(0, 1 << 62)
_POINTS = st.builds(
    Point,
    overlay=SOURCES.map(lambda s: s.key),
    owners=_OWNERS,
    taken=TEXT,
    consistency=TEXT,
    consistency_message=TEXT,
    capacity=_COUNT,
    spoiled=st.booleans(),
)
_KEYS = st.lists(SOURCES.map(lambda s: s.key), max_size=3).map(tuple)
_APPROVED = st.builds(Approved, TEXT, _KEYS.map(frozenset))
_OPERATIONS = st.builds(
    Operation,
    kind=st.sampled_from(OperationKind),
    begun=TEXT.filter(bool),
    owners=_OWNERS,
    kept=LAYERS,
    merged=st.lists(LAYERS, max_size=3).map(tuple),
    below=st.none() | LAYERS,
    attempt=st.integers(1, 1000),
    capacity=_COUNT,
    consistency=TEXT,
    consistency_message=TEXT,
    lent=st.booleans(),
    prepared=st.booleans(),
    process=TEXT,
    run=TEXT,
    pivoting=st.booleans(),
    approved=st.none() | _APPROVED,
)
_REMOVALS = st.builds(
    Removal, layer=LAYERS, owners=_OWNERS, left=TEXT, since=TEXT, attempted=st.booleans(), run=TEXT
)
_DISKS = st.builds(
    DiskJournal,
    target=st.sampled_from(["vda", "vdb", "sdaa"]),
    points=st.lists(_POINTS, max_size=3).map(tuple),
    images=st.frozensets(SOURCES.map(lambda s: s.key), max_size=3),
    lent=st.frozensets(SOURCES.map(lambda s: s.key), max_size=3),
    operation=st.none() | _OPERATIONS,
    removals=st.lists(_REMOVALS, max_size=2).map(tuple),
    known=st.none() | st.builds(Known, _KEYS, st.booleans(), TEXT),
    drift=st.none() | st.builds(Drift, TEXT, _KEYS, _KEYS),
    approved=st.none() | _APPROVED,
    attempts=st.lists(st.builds(Attempt, NAME, st.integers(1, 1000)), max_size=2).map(tuple),
)


@st.composite
def journals(draw: st.DrawFn) -> Journal:
    """A journal as edits make it: disks in order, none of them empty."""
    journal = Journal(cluster=draw(TEXT))
    for disk in draw(st.lists(_DISKS, max_size=3, unique_by=lambda disk: disk.target)):
        journal = journal.with_disk(disk)
    return journal
