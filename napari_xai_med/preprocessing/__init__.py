"""Preprocessing: steps that can be seen and changed, each one of MONAI's transforms or one of ours."""
