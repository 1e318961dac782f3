"""A bundled domain in which an agent talks: an internet provider's help desk, whose customers have tools of their own."""
