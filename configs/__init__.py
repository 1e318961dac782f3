"""One Python file per experiment; each ends in CONFIG, or in STUDY for scripts.study, and can be overridden on the command line."""
