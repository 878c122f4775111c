"""Text in: tasks, files, tokens, metrics, and made-up corpora for those who have no data."""
