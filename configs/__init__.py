"""One Python file per experiment; each ends in CONFIG and can be overridden on the command line."""
