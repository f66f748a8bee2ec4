"""The commands of the command line, one family a file; see `napari_xai_med.cli`."""
