"""How ranks talk: MPI, an in-process twin, one rank alone; all keep the contract in :mod:`consensus.transport.base`."""
