"""Qt widgets; nothing here computes."""
