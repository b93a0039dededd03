"""Engines without a cluster: exploration of interleavings, and the whole-network reference."""
