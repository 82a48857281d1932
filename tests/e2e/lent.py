"""A place of the lab that was made beforehand, in the words of ``spec.overlay.source``."""

from __future__ import annotations

from typing import Any

from lab.storage.image import ImageSource


def lent(place: ImageSource, content: str = "Format") -> dict[str, Any]:
    """The spec of a VolumeSnapshot whose layer goes to ``place``. Credentials are not said: varve takes them
    from the disk, if that is on the same server."""
    if place.protocol in {"file", "block"}:
        return {"overlay": {"source": {"path": place.name, "content": content}}}
    host: dict[str, Any] = (
        {"socket": place.socket} if place.socket else {"name": place.host, "port": place.port}
    )
    source = {"protocol": place.protocol, "name": place.name, "hosts": [host], "content": content}
    return {"overlay": {"source": source}}
