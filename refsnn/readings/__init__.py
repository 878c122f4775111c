"""The readings: what the one description of a network is asked."""
