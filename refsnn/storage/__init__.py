"""Models, spikes and runs as files."""
