"""What would have been: models of a run's ranks and links from its traces, and the simulator on alternatives."""
