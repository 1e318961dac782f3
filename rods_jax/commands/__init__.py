"""The commands: each parses its options and calls one function of the library."""
