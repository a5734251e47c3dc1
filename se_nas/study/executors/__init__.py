"""Where candidates are trained: in this process, or in several on one machine."""
