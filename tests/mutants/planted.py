"""The faults: one wrong decision each, as somebody in a hurry could write it."""

from __future__ import annotations

from dataclasses import dataclass

CHAIN = "controller/chain"
RULE = "tests/chain/test_removal_rule.py"
EVIDENCE = "tests/hypervisor/test_removal_evidence.py"
OUTCOMES = "tests/chain/test_outcome.py"
STRANGERS = "tests/chain/test_strangers.py"
GATE = "tests/chain/test_gate.py"
VETTED = ("tests/chain/test_seal_parts.py", "tests/chain/test_vetting.py")


@dataclass(frozen=True)
class Mutant:
    """``right`` stands once in ``file``; with ``wrong`` in its place, ``test`` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


MUTANTS = (
    # The removal rule.
    Mutant(
        "an absent answer counts as an absent image",
        "controller/hypervisor/last_look.py",
        "if await self._driver.present(source) is False:",
        "if not await self._driver.present(source):",
        EVIDENCE,
    ),
    Mutant(
        "what cannot be looked into is taken for empty",
        "controller/hypervisor/last_look.py",
        "        except NotExaminable:\n            return False",
        "        except NotExaminable:\n            return True",
        EVIDENCE,
    ),
    Mutant(
        "the stored definition is skipped",
        "controller/hypervisor/last_look.py",
        "for chain in (facts.live, facts.inactive):",
        "for chain in (facts.live,):",
        EVIDENCE,
    ),
    Mutant(
        "nobody looks into the overlay of a take that failed",
        "controller/hypervisor/execute.py",
        "empty = not step.removal.attempted or await",
        "empty = step.removal.attempted or await",
        EVIDENCE,
    ),
    Mutant(
        "the run that may have it open does not count",
        f"{CHAIN}/planner.py",
        "(removal.run and removal.run == facts.run)",
        "(removal.run and removal.run != facts.run)",
        RULE,
    ),
    Mutant(
        "a machine that libvirt lost counts as off",
        f"{CHAIN}/planner.py",
        " or self._may_be_lost:",
        ":",
        RULE,
    ),
    Mutant(
        "a name is used again",
        f"{CHAIN}/taking.py",
        "attempt = self.record.attempt_of(want.owner) + 1",
        "attempt = 1",
        RULE,
    ),
    Mutant(
        "an overlay that a call named is like any that was merged",
        f"{CHAIN}/outcome.py",
        "            attempted=True,\n",
        "",
        OUTCOMES,
    ),
    Mutant(
        "what QEMU has open in no disk is not open",
        f"{CHAIN}/outcome.py",
        "opened.has_open(source) is not False",
        "opened.writes_to(source) is not False",
        OUTCOMES,
    ),
    Mutant(
        "a lent place is given back without its mark",
        f"{CHAIN}/outcome.py",
        "unused = bool(operation.process) and opened is not None",
        "unused = opened is not None",
        "tests/chain/test_lent.py",
    ),
    # The outcome table.
    Mutant(
        "QEMU's word on a take is not heard",
        f"{CHAIN}/outcome.py",
        "if facts.live is not None and facts.opened and facts.opened.writes_to(operation.kept.source):",
        "if False:",
        OUTCOMES,
    ),
    Mutant(
        "a definition that names another image is overwritten",
        f"{CHAIN}/outcome.py",
        "return bool(named) and named <= allowed",
        "return bool(named)",
        OUTCOMES,
    ),
    Mutant(
        "the stored definition may stay behind a merge",
        f"{CHAIN}/outcome.py",
        "return Outcome.HALF if stale else Outcome.DONE",
        "return Outcome.DONE",
        OUTCOMES,
    ),
    Mutant(
        "a machine that is off after a pivot was called is believed to be off",
        f"{CHAIN}/outcome.py",
        "lost = operation.pivoting and not facts.stop_is_known",
        "lost = False",
        OUTCOMES,
    ),
    Mutant(
        "an abort that libvirt takes for a pivot is believed",
        f"{CHAIN}/outcome.py",
        "return never_told and found in (Outcome.DONE, Outcome.HALF)",
        "return False",
        OUTCOMES,
    ),
    Mutant(
        "a point comes back with its overlay",
        f"{CHAIN}/drift.py",
        "    return replace(point, overlay=lost(point.overlay))\n\n\ndef _below",
        "    return point\n\n\ndef _below",
        RULE,
    ),
    # Places that were lent.
    Mutant(
        "what QEMU opened is believed unseen",
        f"{CHAIN}/planner.py",
        "        if not operation.lent:\n            return None\n        if facts.opened is None:",
        "        if operation.lent:\n            return None\n        if facts.opened is None:",
        STRANGERS,
    ),
    Mutant(
        "a data file is nothing strange",
        f"{CHAIN}/strangers.py",
        "(bool(top.data_file), f",
        "(False, f",
        STRANGERS,
    ),
    Mutant(
        "a stranger may be kept by a pull",
        f"{CHAIN}/strangers.py",
        "replace(policy, direction=Direction.COMMIT, settle",
        "replace(policy, settle",
        STRANGERS,
    ),
    Mutant(
        "everything is a device too",
        f"{CHAIN}/system_places.py",
        "return pattern.startswith(DEVICES)",
        'return pattern.startswith(("/", "*"))',
        "tests/reconcile/test_given_places.py",
    ),
    Mutant(
        "who stands on an image beside devices is nobody",
        "controller/hypervisor/places.py",
        'if source.type == "file" and holds_devices(source.path):\n        raise NotListable(',
        'if source.type == "dir" and holds_devices(source.path):\n        raise NotListable(',
        "tests/hypervisor/test_device_directories.py",
    ),
    # The gate.
    Mutant(
        "a version that is not known has no faults",
        f"{CHAIN}/gate.py",
        "return version is None or (",
        "return version is not None and (",
        GATE,
    ),
    Mutant(
        "the last version with a fault is one too early",
        f"{CHAIN}/gate.py",
        "version < self.below)",
        "version <= self.below)",
        GATE,
    ),
    Mutant(
        "a chain may be one image too long",
        f"{CHAIN}/depth.py",
        "    if count < limit:\n        return None",
        "    if count <= limit:\n        return None",
        "tests/chain/test_depth.py",
    ),
    Mutant(
        "the class may allow more than libvirt can start",
        f"{CHAIN}/depth.py",
        "if policy.max_layers < gate.deepest:",
        "if policy.max_layers:",
        "tests/chain/test_depth.py",
    ),
    # Seals and vetting.
    Mutant(
        "any seal of a known key is right",
        f"{CHAIN}/seal.py",
        "return Trust.SEALED if right else Trust.BROKEN",
        "return Trust.SEALED",
        VETTED[0],
    ),
    Mutant(
        "a record is good for any machine",
        f"{CHAIN}/seal.py",
        "head = [FORMAT, whose.cluster, whose.domain]",
        "head = [FORMAT, whose.cluster]",
        VETTED[0],
    ),
    Mutant(
        "an unsealed record may name any image in the disk's places",
        f"{CHAIN}/vetting.py",
        "if not mine or not is_for_disk(leaf, target):",
        "if False:",
        VETTED[1],
    ),
    Mutant(
        "an unsealed record says whether an image may hold what the guest wrote",
        f"{CHAIN}/vetting.py",
        "attempted = removal.attempted or not (removal.left or asked_for)",
        "attempted = removal.attempted",
        VETTED[1],
    ),
    Mutant(
        "a merge that an unsealed record tells of is seen through",
        f"{CHAIN}/vetting.py",
        "return bool(operation.merged) and unwanted and ours",
        "return bool(operation.merged) and ours",
        VETTED[1],
    ),
    Mutant(
        "what an object remembers does not count beside its record",
        f"{CHAIN}/remembered.py",
        "    if want.memory is None:\n        return False",
        "    return False",
        "tests/chain/test_remembered.py",
    ),
)
