"""Learning: a student distilled from its teacher, stage by stage."""
