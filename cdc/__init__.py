"""The kernel: model, contracts, topology, engine and command line. It imports nothing from connectors/ or sinks/."""
