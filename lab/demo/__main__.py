"""`python -m lab.demo`: see :mod:`lab.demo`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab.controller import Controller
from lab.demo import stage
from lab.demo.play import NAMESPACE, Play
from lab.errors import LabError
from lab.install import install
from lab.lab import Lab, default_directory
from lab.root import become_root

_TRY = """
Left running, as asked (KEEP=1). In another terminal:

  export KUBECONFIG={kubeconfig} PATH={path}:$PATH

Three things to try:
  1. kubectl apply -f - <<< '{{"apiVersion":"varve.dev/v1alpha1","kind":"VolumeSnapshot",\
"metadata":{{"name":"mine","namespace":"{namespace}"}},"spec":{{"source":{{"domain":"web-1","disk":"vda"}}}}}}'
     kubectl get vvs -n {namespace} -o wide
  2. virsh -c '{uri}' dumpxml web-1 | grep -A30 '<disk'      (the chain as libvirt shows it)
  3. virsh -c '{uri}' destroy web-1; kubectl delete vvs/mine -n {namespace} --wait=false
     kubectl describe vvs/mine -n {namespace}     (what it waits for; virsh start web-1 lets it go on)

End it with:  {python} -m lab down --dir {directory}
"""


def main() -> int:
    """Run the demo; 0 when every byte was as it should be."""
    become_root("lab.demo", [])
    install()
    keep = os.environ.get("KEEP", "") not in ("", "0")
    directory = default_directory() if keep else None
    lab = Lab(directory, detached=keep)
    try:
        play(lab)
    except (LabError, KeyboardInterrupt) as error:
        print(f"\nThe demo did not reach its end: {error or 'interrupted'}", file=sys.stderr)
        lab.close()
        return 1
    if not keep:
        stage.heading("The end")
        stage.tell("Everything that was started is ended and removed.")
        lab.close()
        return 0
    plane = lab.control_plane()
    print(
        _TRY.format(
            kubeconfig=plane.kubeconfig,
            path=Path(plane.kubectl_path).parent,
            namespace=NAMESPACE,
            uri=lab.host().uri,
            python=sys.executable,
            directory=lab.directory,
        )
    )
    return 0


def play(lab: Lab) -> None:
    """All acts in order."""
    stage.heading("varve: declared snapshots, live backing chains")
    stage.tell(
        """Everything here is real: etcd and kube-apiserver, libvirtd and QEMU, a gluster server and an NBD
        server, all on this machine and on loopback only. The first run installs what is missing."""
    )
    plane = lab.control_plane()
    print(f"  kube-apiserver answers at {plane.server}", flush=True)
    host = lab.host()
    print(f"  libvirtd answers at {host.uri}", flush=True)
    acts = Play(lab)
    controller = Controller(lab)
    try:
        acts.set_up(controller)
        acts.take()
        acts.verify()
        acts.merge()
        acts.compare()
    except LabError as error:
        raise LabError(f"{error}\nthe controller's log ended so:\n{tail(controller.log)}") from error
    code = controller.stop() if os.environ.get("KEEP", "") in ("", "0") else 0
    if code != 0:
        raise LabError(f"the controller ended with {code}, see {controller.log}")


def tail(log: Path, lines: int = 40) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text().splitlines()[-lines:]) if log.exists() else "(there is none)"


if __name__ == "__main__":
    sys.exit(main())
