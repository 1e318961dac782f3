"""Chat text <-> calls, one module per model family. Nothing here evaluates text."""
