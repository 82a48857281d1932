"""Keys and certificates of storage servers and their clients, named as QEMU wants them."""

from __future__ import annotations

from pathlib import Path

from lab.control.pki import openssl

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


def make_certificates(directory: Path) -> tuple[Path, Path]:
    """The directories of a server (for 127.0.0.1) and of a client, below `directory`; made once.

    Each holds `ca-cert.pem`, its own certificate and key. Raises LabError if openssl fails.
    """
    server, client = directory / "server", directory / "client"
    if not directory.exists():
        fresh = directory.with_name(f"{directory.name}-unfinished")
        _make(fresh)
        fresh.rename(directory)
    return server, client


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    authority, key = directory / "ca-cert.pem", directory / "ca-key.pem"
    openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", str(key), "-out", str(authority), "-subj", "/CN=storage"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    for role in ("server", "client"):
        own = directory / role
        own.mkdir(mode=0o700)
        openssl(
            *("req", "-x509", *_NEW_KEY, "-CA", str(authority), "-CAkey", str(key), "-subj", f"/CN={role}"),
            *("-keyout", str(own / f"{role}-key.pem"), "-out", str(own / f"{role}-cert.pem")),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "keyUsage=critical,digitalSignature", "-addext", f"extendedKeyUsage={role}Auth"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        )
        (own / "ca-cert.pem").write_bytes(authority.read_bytes())
    # Without this file QEMU makes parameters of its own each time a server starts, which takes seconds.
    group = ("-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
    openssl("genpkey", *group, "-out", str(directory / "server" / "dh-params.pem"))
    key.unlink()  # nothing else is ever signed by it
