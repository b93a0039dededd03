"""``python -m consensus`` and, for a rank, ``python -m mpi4py -m consensus``."""

from __future__ import annotations

from consensus.cli import main

if __name__ == "__main__":
    main()
