"""python -m voxmlx.doctor: what a bug report should say about a machine."""
