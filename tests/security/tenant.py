"""A tenant: kubectl in one namespace, with a token that is worth what the shipped roles give."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from lab.control.plane import ControlPlane
from tests.e2e.shop import Shop

_ACCOUNT = "tenant"
_ROLES = ("varve-edit", "varve-view", "system:aggregate-to-view")
"""What `edit` and `view` of a real cluster give a tenant of varve: the lab has no controller that aggregates
roles, so their parts are bound. The last one lets events be read."""


@dataclass(frozen=True)
class Tenant(Shop):
    """The namespace as somebody sees it who is no administrator: nothing here has more rights than that."""

    token: str = ""

    @classmethod
    def of(cls, plane: ControlPlane, namespace: str) -> Self:
        """The tenant of a namespace, which is made with its ServiceAccount if there is none yet."""
        if plane.kubectl("get", "namespace", namespace, check=False).returncode != 0:
            plane.kubectl("create", "namespace", namespace)
        plane.kubectl("apply", "-f", "-", stdin=_documents(namespace))
        token = plane.kubectl("create", "token", _ACCOUNT, "-n", namespace, "--duration=24h").stdout.strip()
        return cls(plane, namespace, token)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: int = 30
    ) -> str:
        """As of Shop, by the tenant's own token."""
        return super().kubectl("--token", self.token, *arguments, stdin=stdin, check=check, timeout=timeout)

    def may(self, *arguments: str) -> bool:
        """`kubectl auth can-i`, such as `may("delete", "vvs")`."""
        return self.kubectl("auth", "can-i", *arguments, check=False).strip() == "yes"


def _documents(namespace: str) -> str:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": _ACCOUNT, "namespace": namespace},
    }
    return "\n---\n".join(json.dumps(one) for one in (account, *(_bound(namespace, r) for r in _ROLES)))


def _bound(namespace: str, role: str) -> dict[str, object]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"tenant-{role.replace(':', '-')}", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": namespace}],
    }
