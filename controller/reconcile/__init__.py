"""The loop: what wakes it, which domain a source means, the pass itself, and what is reported of it."""
