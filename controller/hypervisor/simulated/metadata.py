"""``<metadata>``: varve's element beside those of others, live and persistent."""

from __future__ import annotations

from lxml import etree

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.hypervisor.errors import OperationFailed
from controller.hypervisor.simulated.machine import Machine

MAX_BYTES = 4 << 20
"""libvirt's message limit: 3 MB passed and 5 MB did not (measured)."""
_PREFIX = "varve"
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


def replace(machine: Machine, xml: str | None, *, live: bool, config: bool) -> None:
    """virDomainSetMetadata: None removes. Raises NotRunning, or OperationFailed for a transient domain's
    missing persistent half, a message that is too long, or text that is not one element."""
    if live:
        machine.running()
    if config and machine.definition is None:
        raise OperationFailed("transient domains do not have any persistent config", code=55)
    element = None if xml is None else _namespaced(xml)
    for asked, kept in ((live, machine.live_metadata), (config, machine.config_metadata)):
        if not asked:
            continue
        if element is None:
            kept.pop(JOURNAL_NAMESPACE, None)
        else:
            kept[JOURNAL_NAMESPACE] = element


def _namespaced(xml: str) -> str:
    """The element as libvirt keeps it: it declares the prefix, and puts every element that has no namespace
    into varve's (measured). The caller's own declaration of that prefix is an error to it."""
    if len(xml.encode()) > MAX_BYTES:
        raise OperationFailed("Unable to encode message payload", code=39)
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
    except etree.XMLSyntaxError as error:
        raise OperationFailed(f"(metadata_xml): {error}", code=35) from error
    if etree.QName(root).namespace != JOURNAL_NAMESPACE:
        raise ValueError(
            f"the journal is of namespace {JOURNAL_NAMESPACE}, not {etree.QName(root).namespace}"
        )
    if _PREFIX in root.nsmap:
        raise OperationFailed("internal error: failed to create a new XML namespace", code=1)
    for element in root.iter(etree.Element):
        if etree.QName(element).namespace is None:
            element.tag = f"{{{JOURNAL_NAMESPACE}}}{element.tag}"
    return etree.tostring(root, encoding="unicode")
