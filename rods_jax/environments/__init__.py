"""Tool worlds: protocol, adapter for any Python class, the bundled domain, BFCL."""
