"""The CustomResourceDefinitions, made from the models: the models are the one description of the API.

pydantic's JSON schema becomes a structural schema: references are inlined, ``anyOf`` with null becomes
"may be absent", and what has no place in a structural schema is dropped.
"""

from dataclasses import dataclass, field
from typing import Any

from controller.api import GROUP, VERSION
from controller.api.hypervisor import Hypervisor
from controller.api.objects import Object
from controller.api.schema import JsonObject
from controller.api.volumechain import VolumeChain
from controller.api.volumesnapshot import VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClass

ANY_TIME = 64
"""Bound on the length of a time, for the cost estimate of CEL rules."""


@dataclass(frozen=True)
class Column:
    """One column of ``kubectl get``; a ``wide`` one only with ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def definition(self) -> JsonObject:
        """The entry of ``additionalPrinterColumns``."""
        entry: JsonObject = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return {**entry, "priority": 1} if self.wide else entry


@dataclass(frozen=True)
class Kind:
    """What a CRD says beyond its schema."""

    model: type[Object]
    plural: str
    namespaced: bool = False
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    has_status: bool = True
    age: Column = field(default=Column("Age", ".metadata.creationTimestamp", "date"))

    @property
    def name(self) -> str:
        """The kind's name, such as VolumeSnapshot."""
        return self.model.__name__

    @property
    def file_name(self) -> str:
        """The name that the CRD's file has, as controller-gen would give it."""
        return f"{GROUP}_{self.plural}.yaml"


_READY = '.status.conditions[?(@.type=="Ready")]'
_SUMMARY = (Column("Ready", f"{_READY}.status"), Column("Reason", f"{_READY}.reason"))

KINDS = (
    Kind(
        VolumeSnapshot,
        plural="volumesnapshots",
        namespaced=True,
        short_names=("vvs",),
        columns=(
            *_SUMMARY,
            Column("Domain", ".status.resolved.domainName"),
            Column("Disk", ".spec.source.disk"),
            Column("Size", ".status.restoreSize"),
            Column("Created", ".status.creationTime", "date"),
            Column("Hypervisor", ".status.resolved.hypervisor", wide=True),
            Column("Consistency", ".status.consistency", wide=True),
            Column("Operation", ".status.operation.kind", wide=True),
            Column("Progress", ".status.operation.percent", "integer", wide=True),
            Column("Layer", ".status.layer.source", wide=True),
        ),
        selectable=(".spec.source.domain", ".spec.source.domainUUID", ".spec.source.hypervisor"),
    ),
    Kind(
        VolumeSnapshotClass,
        plural="volumesnapshotclasses",
        columns=(
            Column("DeletionPolicy", ".spec.deletionPolicy"),
            Column("Quiesce", ".spec.quiesce"),
            Column("Direction", ".spec.merge.direction"),
        ),
        has_status=False,  # Flux applies kinds named *Class first and waits for those that have a status
    ),
    Kind(
        VolumeChain,
        plural="volumechains",
        namespaced=True,
        short_names=("vvc",),
        columns=(
            *_SUMMARY,
            Column("Domain", ".status.resolved.domainName"),
            Column("Disk", ".spec.source.disk"),
            Column("Depth", ".status.depth", "integer"),
            Column("Plan", ".status.plan.hash"),
            Column("Hypervisor", ".status.resolved.hypervisor", wide=True),
            Column("Approval", ".spec.approval", wide=True),
            Column("Bytes", ".status.totalBytes", "integer", wide=True),
            Column("Reclaimable", ".status.reclaimableBytes", "integer", wide=True),
            Column("Operation", ".status.operation.kind", wide=True),
            Column("Progress", ".status.operation.percent", "integer", wide=True),
        ),
        selectable=(".spec.source.domain", ".spec.source.domainUUID", ".spec.source.hypervisor"),
    ),
    Kind(
        Hypervisor,
        plural="hypervisors",
        columns=(
            *_SUMMARY,
            Column("Libvirt", ".status.libvirtVersion"),
            Column("QEMU", ".status.qemuVersion"),
            Column("Domains", ".status.domains.total", "integer"),
            Column("Orphans", ".status.orphanImages.count", "integer", wide=True),
        ),
    ),
)


def definition(kind: Kind) -> JsonObject:
    """The whole CustomResourceDefinition of one kind."""
    singular = kind.name.lower()
    names: JsonObject = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": singular,
        "categories": ["varve"],
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    version: JsonObject = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.definition() for column in (*kind.columns, kind.age)],
        "schema": {"openAPIV3Schema": object_schema(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.has_status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "varve", "app.kubernetes.io/part-of": "varve"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def object_schema(kind: Kind) -> JsonObject:
    """The structural schema of one kind's objects."""
    raw = kind.model.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(raw, raw.get("$defs", {}))
    properties = schema["properties"]
    properties["metadata"] = {"type": "object"}
    if kind.has_status:
        # A new object without a status would count as done for kstatus (kubernetes.md, B2).
        properties["status"]["default"] = {"observedGeneration": -1}
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"{kind.name}."},
        **properties,
    }
    schema["required"] = sorted({"spec"} & set(schema.get("required", ())))
    if not schema["required"]:
        del schema["required"]
    return schema


_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "x-kubernetes-validations",
)


def _structural(node: JsonObject, definitions: JsonObject) -> JsonObject:
    """One node of pydantic's schema as a node of a structural schema, with all below it."""
    node = _inlined(node, definitions)
    schema: JsonObject = {key: node[key] for key in _KEPT if key in node}
    if schema.get("default", ...) in (None, []):
        del schema["default"]
    if isinstance(schema.get("default"), dict):
        schema["default"] = {}  # the defaults of the properties fill it
    if schema.get("type") == "integer":
        schema["format"] = "int64"
    if schema.get("format") == "date-time":
        schema["maxLength"] = ANY_TIME
    if "items" in node:
        schema["items"] = _structural(node["items"], definitions)
        schema |= _list_type(schema["items"])
    if "properties" in node:
        schema["properties"] = {
            name: _structural(child, definitions) for name, child in node["properties"].items()
        }
    if node.get("required"):
        schema["required"] = node["required"]
    return schema


def _inlined(node: JsonObject, definitions: JsonObject) -> JsonObject:
    """Replace a reference, and ``anyOf [X, null]``, by what they stand for; the field's own words win."""
    merged = dict(node)
    while "$ref" in merged or "anyOf" in merged:
        if "$ref" in merged:
            target: Any = definitions[merged.pop("$ref").removeprefix("#/$defs/")]
        else:
            (target,) = (choice for choice in merged.pop("anyOf") if choice.get("type") != "null")
        merged = {**target, **merged}
    return merged


def _list_type(items: JsonObject) -> JsonObject:
    """Conditions are merged by type, so that other controllers may add theirs; other lists are one value."""
    if {"type", "status", "lastTransitionTime"} <= set(items.get("properties", {})):
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {"x-kubernetes-list-type": "atomic"}
