"""What the lab tells the person in front of it: on stderr, so that stdout stays for what was asked for."""

import sys


def say(text: str) -> None:
    """Print one line now."""
    print(f"lab: {text}", file=sys.stderr, flush=True)
