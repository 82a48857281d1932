"""Attacks, as a tenant makes them: on the real parts, with the tenant's own token."""
