"""Event logs: everything an engine was told and when, with enough of its answers to notice the first difference in a replay."""
