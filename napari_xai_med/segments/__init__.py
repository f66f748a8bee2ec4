"""Superpixels and supervoxels: the parts of an image whose contributions are asked for."""
