"""Storage servers on loopback, one module each. What they share is `lab.storage.image`."""
