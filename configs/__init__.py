"""One Python file per experiment; each ends in CONFIG, which the command line can override, or in STUDY."""
