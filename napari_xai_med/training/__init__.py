"""How the embedded classifiers were made: phantoms to learn from, and one recipe for 2D and 3D."""
