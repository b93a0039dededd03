"""What runs on the virtual clock: rules on a quadratic problem, many ranks in one process."""
