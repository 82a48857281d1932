"""The API group ``varve.dev``: models, validation, conditions and reasons. Pure: no I/O, no clock."""

GROUP = "varve.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FINALIZER = f"{GROUP}/chain-protection"
"""Kept on a VolumeSnapshot from before its layer is taken until the merge is durable."""

DEFAULT_CLASS_ANNOTATION = f"{GROUP}/is-default-class"
"""``"true"`` on the VolumeSnapshotClass that is meant when a VolumeSnapshot names none."""
