"""The description: what a network is, before anything is asked of it."""
