"""What a run does, one after the other: the search, then the final seeds."""
