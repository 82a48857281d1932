"""libvirt I/O: connections and their threads, events, observation, and the execution of one step."""
