"""Latency on the user's device: timed in turn with the backbone, and predicted from a table of such timings."""
