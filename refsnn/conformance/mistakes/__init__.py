"""Known mistakes, made on purpose."""
