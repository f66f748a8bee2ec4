"""Explanation methods, one family a file. A new method is a new class there and appears everywhere by itself."""
