"""The namespace `shop` as its users see it: everything goes through kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.control.plane import ControlPlane
from lab.controller import snapshot
from lab.deadline import wait_until

KIND = "volumesnapshots.varve.dev"


@dataclass(frozen=True)
class Shop:
    """kubectl in one namespace. Times are in seconds."""

    plane: ControlPlane
    namespace: str = "shop"

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: int = 30
    ) -> str:
        """Run kubectl in the namespace and return what it printed. Raises LabError when it fails.
        `timeout`: what kubectl itself was told."""
        everything = ("-n", self.namespace, *arguments)
        return self.plane.kubectl(*everything, stdin=stdin, check=check, timeout=timeout + 30).stdout

    def _waiting(self, *arguments: str, timeout: int) -> None:
        self.kubectl(*arguments, f"--timeout={timeout}s", timeout=timeout)

    def apply(self, *documents: str) -> None:
        """Apply JSON or YAML documents in one call."""
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(documents))

    def snapshot(self, name: str, domain: str, *, disk: str = "vda", **spec: Any) -> None:
        """Apply one VolumeSnapshot."""
        self.apply(snapshot(name, domain, namespace=self.namespace, disk=disk, **spec))

    def ready(self, *names: str, timeout: int = 30) -> None:
        """`kubectl wait --for=condition=Ready`."""
        self._waiting("wait", "--for=condition=Ready", *_objects(names), timeout=timeout)

    def until(self, name: str, path: str, value: str, *, timeout: int = 30) -> None:
        """`kubectl wait --for=jsonpath`."""
        self._waiting("wait", f"--for=jsonpath={{{path}}}={value}", f"vvs/{name}", timeout=timeout)

    def waits_for(self, name: str, reason: str, *, timeout: int = 30) -> str:
        """Wait until Ready carries this reason; returns its message, after checking that it is not True."""
        self.until(name, '.status.conditions[?(@.type=="Ready")].reason', reason, timeout=timeout)
        ready = self.condition(name, "Ready")
        assert ready["status"] != "True", ready
        return str(ready["message"])

    def fails(self, name: str, *, timeout: int = 30) -> None:
        """Wait until a person is called, which kstatus (Flux, Helm) reads as Failed."""
        self._waiting("wait", "--for=condition=Stalled", f"vvs/{name}", timeout=timeout)
        status = self.get(name)
        assert status["status"]["observedGeneration"] == status["metadata"]["generation"]
        assert self.condition(name, "Reconciling")["status"] == "False"

    def told(self, name: str, pattern: str, *, timeout: float = 30) -> dict[str, Any]:
        """Wait until this regular expression is found in the message of Ready; returns the condition."""

        def look() -> dict[str, Any] | None:
            ready = self.condition(name, "Ready")
            return ready if re.search(pattern, " ".join(ready["message"].split())) else None

        return wait_until(look, timeout=timeout, what=f"{name} says {pattern!r}", interval=0.2)

    def delete(self, *names: str, timeout: int = 30) -> None:
        """`kubectl delete`, which returns when the objects are gone."""
        self._waiting("delete", *_objects(names), timeout=timeout)

    def begin_delete(self, *names: str) -> None:
        """Ask for the deletion and return at once."""
        self.kubectl("delete", *_objects(names), "--wait=false")

    def gone(self, *names: str, timeout: int = 30) -> None:
        """Wait until the objects are gone."""
        self._waiting("wait", "--for=delete", *_objects(names), timeout=timeout)

    def get(self, name: str) -> dict[str, Any]:
        """The object. Raises LabError when there is none."""
        found: dict[str, Any] = json.loads(self.kubectl("get", f"vvs/{name}", "-o", "json"))
        return found

    def objects(self) -> dict[str, dict[str, Any]]:
        """All VolumeSnapshots of the namespace, by name."""
        items = json.loads(self.kubectl("get", KIND, "-o", "json"))["items"]
        return {one["metadata"]["name"]: one for one in items}

    def names(self) -> set[str]:
        """Names of all VolumeSnapshots of the namespace."""
        return set(self.kubectl("get", KIND, "-o", "jsonpath={.items[*].metadata.name}").split())

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """One condition of an object."""
        conditions = self.get(name)["status"]["conditions"]
        (found,) = (one for one in conditions if one["type"] == kind)
        return dict(found)

    def wait_event(self, name: str, reason: str, *, timeout: float = 10) -> str:
        """Wait for an event, which may come after the object has gone; returns its note."""

        def find() -> str | None:
            items = json.loads(self.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
            notes = [
                one["note"]
                for one in items
                if one["regarding"].get("name") == name and one["reason"] == reason
            ]
            return notes[-1] if notes else None

        return wait_until(find, timeout=timeout, what=f"event {reason} of {name}", interval=0.2)

    def wait_detail(self, *words: str, hypervisor: str = "host-a", timeout: float = 10) -> str:
        """Wait for an event of the Hypervisor with all these words: what tells of others is told there alone,
        to administrators."""

        def find() -> str | None:
            command = ("-n", "kube-system", "get", "events.events.k8s.io", "-o", "json")
            items = json.loads(self.plane.kubectl(*command).stdout)["items"]
            notes = [
                one["note"]
                for one in items
                if (one["regarding"].get("kind"), one["regarding"].get("name")) == ("Hypervisor", hypervisor)
            ]
            return next((note for note in notes if all(word in note for word in words)), None)

        return wait_until(find, timeout=timeout, what=f"an event of {hypervisor} says {words}", interval=0.2)

    def clear(self) -> None:
        """Take all VolumeSnapshots away at once, whatever they wait for: the machines go next."""
        left = sorted(self.names())
        if not left:
            return
        # What is being deleted already may go at any moment.
        self.kubectl("delete", *_objects(left), "--wait=false", "--ignore-not-found")
        for name in sorted(self.names()):
            self.kubectl(
                "patch", f"vvs/{name}", "--type=merge", '-p={"metadata":{"finalizers":null}}', check=False
            )
        self.gone(*left)


def _objects(names: Iterable[str]) -> list[str]:
    return [f"vvs/{name}" for name in names]
