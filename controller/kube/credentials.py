"""Where the API server is and how to authenticate: a kubeconfig, or the pod's ServiceAccount."""

import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.kube_config import KubeConfigMerger
from yaml import YAMLError

from controller.kube.errors import KubeError

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its namespace."""

_MALFORMED = (ConfigException, YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""kubernetes.aio raises whatever its walk through a malformed file runs into."""


class BadCredentials(KubeError):
    """There is no usable kubeconfig or ServiceAccount; the message says where was looked and what to set."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The same credentials for another client (the watches): paths of files, token without its scheme."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    token: str | None
    scheme: str | None
    insecure: bool
    proxy_url: str | None


class Credentials:
    """Reads credentials whenever asked, since tokens expire and exec plugins issue new ones."""

    def __init__(
        self, kubeconfig: str | None, *, context: str | None = None, in_cluster: bool = False
    ) -> None:
        """``kubeconfig`` is a path, or several joined as in ``KUBECONFIG``; needed unless ``in_cluster``.

        ``context`` is one of its contexts instead of the current one.
        """
        self._kubeconfig = kubeconfig
        self._context = context
        self._in_cluster = in_cluster
        self._directory: str | None = None
        self._making = threading.Lock()  # the Lease has a thread of its own, and the same credentials

    @property
    def source(self) -> str:
        """Where the credentials come from, for a log line."""
        return (
            "the pod's ServiceAccount" if self._in_cluster else f"kubeconfig {self._kubeconfig or '(none)'}"
        )

    def namespace(self) -> str | None:
        """The namespace of the context, or of the pod; None when it names none. Raises BadCredentials."""
        try:
            if self._in_cluster:
                return OWN_NAMESPACE.read_text(encoding="utf-8").strip() or None
            if not self._kubeconfig or not _any_file(self._kubeconfig):
                return None  # load says where was looked
            merged = KubeConfigMerger(self._kubeconfig).config  # type: ignore[no-untyped-call]
            name = self._context or merged.value.get("current-context")
            found = merged["contexts"].get_with_name(name, safe=True) if name else None
            return (found.value.get("context") or {}).get("namespace") or None if found else None
        except _MALFORMED as error:
            raise BadCredentials(f"{self.source} cannot be used: {error}") from error

    async def load(self) -> Configuration:
        """Read them now. Raises BadCredentials."""
        configuration = Configuration()
        try:
            if self._in_cluster:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # has no annotations
            elif self._kubeconfig:
                await self._from_kubeconfig(self._kubeconfig, configuration)
            else:
                raise BadCredentials(
                    "no kubeconfig is named and this is not a pod: set KUBECONFIG or --kubeconfig"
                )
        except _MALFORMED as error:
            raise BadCredentials(f"{self.source} cannot be used: {error}") from error
        return configuration

    async def connection(self) -> Connection:
        """Read them now, for the watches. Raises BadCredentials."""
        loaded = await self.load()
        scheme, _, token = (await loaded.get_api_key_with_prefix("BearerToken") or "").partition(" ")
        return Connection(
            server=loaded.host,
            ca_path=loaded.ssl_ca_cert,
            certificate_path=loaded.cert_file,
            private_key_path=loaded.key_file,
            token=token.strip() or None,
            scheme=scheme.capitalize() or None,
            insecure=not loaded.verify_ssl,
            proxy_url=loaded.proxy,
        )

    def close(self) -> None:
        """Remove the files that inline certificates and keys were written to."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def _from_kubeconfig(self, paths: str, configuration: Configuration) -> None:
        if not _any_file(paths):
            raise BadCredentials(f"there is no kubeconfig at {paths}")
        with self._making:
            if self._directory is None:
                # TLS libraries want certificates as files; inline ones go here, readable only by this user
                self._directory = tempfile.mkdtemp(prefix="varve-")
        await load_kube_config(  # type: ignore[no-untyped-call]  # has no annotations
            config_file=paths,
            context=self._context,
            client_configuration=configuration,
            persist_config=False,
            temp_file_path=self._directory,
        )


def _any_file(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)
