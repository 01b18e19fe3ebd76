"""What a map of each kind of task is."""
