"""Files that a network can be loaded from, one format a file; a new one is a new class there."""
