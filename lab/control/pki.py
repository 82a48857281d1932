"""Keys and certificates of one control plane, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

_CURVE = ("-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True, slots=True)
class Pki:
    """Paths below one directory."""

    directory: Path

    @property
    def ca(self) -> Path:
        """Certificate of the authority that clients trust."""
        return self.directory / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """For 127.0.0.1 and localhost."""
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        """Its key."""
        return self.directory / "server.key"

    @property
    def service_account_key(self) -> Path:
        """Signs service-account tokens."""
        return self.directory / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        """Checks them (kube-apiserver does not take it from a PKCS #8 private key)."""
        return self.directory / "service-account.pub"


def make_pki(directory: Path) -> Pki:
    """Make all of it. Explicit extensions, because strict verifiers (Python 3.13 and later) ask for them."""
    directory.mkdir(parents=True, mode=0o700)
    pki = Pki(directory)
    authority = directory / "ca.key"
    request = ["req", "-x509", "-newkey", "ec", *_CURVE, "-nodes", "-days", "30"]
    openssl(
        *(*request, "-keyout", str(authority), "-out", str(pki.ca), "-subj", "/CN=varve-lab"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    openssl(
        *(*request, "-keyout", str(pki.server_key), "-out", str(pki.server_certificate)),
        *("-CA", str(pki.ca), "-CAkey", str(authority), "-subj", "/CN=kube-apiserver"),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature"),
        *("-addext", "extendedKeyUsage=serverAuth", "-addext", "authorityKeyIdentifier=keyid"),
        *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"),
    )
    openssl("genpkey", "-algorithm", "EC", *_CURVE, "-out", str(pki.service_account_key))
    openssl(
        "pkey", "-in", str(pki.service_account_key), "-pubout", "-out", str(pki.service_account_public_key)
    )
    authority.unlink()  # nothing else is ever signed by it
    return pki


def openssl(*arguments: str) -> None:
    """Run the openssl command. Raises LabError with what it says."""
    answer = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        raise LabError(f"openssl {arguments[0]} failed: {answer.stderr.strip()}")
