"""Networks of Keras, as networks of PyTorch: read the file, check it, build it, convert it."""
