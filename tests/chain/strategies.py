"""Generated sources, layers and journals: every protocol, odd characters, whatever XML can carry."""

from __future__ import annotations

from hypothesis import strategies as st
from lxml import etree

from controller.chain.disk import Layer
from controller.chain.journal import DiskJournal, Journal, Operation, OperationKind, Owner, Point, Removal
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
_HOST = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z0-9.-]{1,12}", fullmatch=True)}, optional={"port": _PORT}
)
_UNIX = st.fixed_dictionaries({"transport": st.just("unix"), "socket": _PATH})


def _build(
    kind: str, attributes: dict[str, str], children: list[tuple[str, dict[str, str]]]
) -> tuple[str, str]:
    element = etree.Element("source", attributes)
    for tag, child in children:
        made = etree.SubElement(element, tag, child)
        if tag == "auth":
            etree.SubElement(made, "secret", type="ceph", uuid="11111111-2222-4333-8444-555555555555")
    return kind, etree.tostring(element, encoding="unicode")


@st.composite
def _network(draw: st.DrawFn) -> tuple[str, str]:
    protocol = draw(st.sampled_from(["gluster", "nbd", "rbd", "iscsi", "http", "https", "ssh"]))
    name = draw(st.lists(NAME, min_size=1, max_size=3).map("/".join))
    attributes = {"protocol": protocol, "name": name}
    if protocol == "nbd" and draw(st.booleans()):
        attributes["tls"] = "yes"
    if protocol == "http" and draw(st.booleans()):
        attributes["query"] = draw(TEXT.filter(bool))
    hosts = [draw(_UNIX)] if protocol == "nbd" and draw(st.booleans()) else draw(st.lists(_HOST, max_size=3))
    children = [("host", host) for host in hosts]
    if protocol == "rbd" and draw(st.booleans()):
        children.append(("auth", {"username": draw(NAME)}))
    return _build("network", attributes, children)


SPELLINGS: st.SearchStrategy[tuple[str, str]] = st.one_of(
    _PATH.map(lambda path: _build("file", {"file": path}, [])),
    _PATH.map(lambda path: _build("block", {"dev": path}, [])),
    st.tuples(NAME, NAME).map(lambda two: _build("volume", {"pool": two[0], "volume": two[1]}, [])),
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
)
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
    process=TEXT,
)
_REMOVALS = st.builds(Removal, layer=LAYERS, owners=_OWNERS, left=TEXT)
_DISKS = st.builds(
    DiskJournal,
    target=st.sampled_from(["vda", "vdb", "sdaa"]),
    points=st.lists(_POINTS, max_size=3).map(tuple),
    images=st.frozensets(SOURCES.map(lambda s: s.key), max_size=3),
    operation=st.none() | _OPERATIONS,
    removals=st.lists(_REMOVALS, max_size=2).map(tuple),
)


@st.composite
def journals(draw: st.DrawFn) -> Journal:
    """A journal as edits make it: disks in order, none of them empty."""
    journal = Journal(cluster=draw(TEXT))
    for disk in draw(st.lists(_DISKS, max_size=3, unique_by=lambda disk: disk.target)):
        journal = journal.with_disk(disk)
    return journal
