"""What a run will need, told without running it."""
