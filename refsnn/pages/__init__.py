"""What people look at: pages, figures, tables for the terminal."""
