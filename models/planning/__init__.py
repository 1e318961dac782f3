"""What a run of these models needs of a machine: its programs, compiled or counted, and its hours."""
