"""Experiments from run files: train, evaluate, summarise."""
