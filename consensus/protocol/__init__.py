"""The neighbour exchange as state machines without input or output; standard library only, clock as an argument."""
