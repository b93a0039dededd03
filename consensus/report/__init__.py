"""Reports on runs: from their folders to one HTML page, a trace for Perfetto, and scalars for TensorBoard."""
