"""``varve`` and ``kubectl-varve``; also ``python -m controller.cli``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.cli.arguments import Options, parse
from controller.cli.cluster import Cluster
from controller.cli.commands import Command
from controller.cli.errors import CommandError
from controller.cli.output import Output, ask, output
from controller.kube.client import ApiClient
from controller.kube.credentials import Credentials
from controller.kube.errors import KubeError
from controller.telemetry.metrics import Metrics

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell; ``watch`` has no other end, so there it is 0."""


def main() -> int:
    """Run the process: 0 done, 1 error or not found, 2 wrong usage."""
    options = parse(sys.argv[1:], sys.argv[0])
    try:
        shown = output(options.output, sys.stdout, os.environ)
        return asyncio.run(execute(options, shown, os.environ, at_terminal=_at_terminal()))
    except KeyboardInterrupt:
        return 0 if options.command == "watch" else INTERRUPTED
    except BrokenPipeError:  # whoever read, as `head`, has enough; nothing may be written at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


async def execute(
    options: Options, shown: Output, environment: Mapping[str, str], *, at_terminal: bool = False
) -> int:
    """Run one command against the cluster that the arguments name. Returns the exit code."""
    client: ApiClient | None = None
    try:
        credentials = _credentials(options, environment)
        namespace = options.namespace or credentials.namespace() or "default"
        client = ApiClient(credentials, Metrics())
        await Command(options, Cluster(client), namespace, shown, ask if at_terminal else None).run()
    except (CommandError, KubeError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    finally:
        if client is not None:
            await client.close()
    return 0


def run(arguments: Sequence[str], shown: Output, environment: Mapping[str, str]) -> int:
    """Run one command in this process and draw it to ``shown``."""
    return asyncio.run(execute(parse(arguments), shown, environment))


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _credentials(options: Options, environment: Mapping[str, str]) -> Credentials:
    """As kubectl looks for them: the flag, KUBECONFIG, ~/.kube/config, the pod."""
    usual = Path("~/.kube/config").expanduser()
    named = options.kubeconfig or environment.get("KUBECONFIG") or (str(usual) if usual.is_file() else None)
    if named is None and environment.get("KUBERNETES_SERVICE_HOST"):
        return Credentials(None, in_cluster=True)
    return Credentials(named, context=options.context)


if __name__ == "__main__":
    sys.exit(main())
