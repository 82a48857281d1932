"""Hypervisors: independent libvirtd "hosts" on one machine."""
