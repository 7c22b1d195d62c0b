"""Files that another server transcribes, for `voxmlx transcribe --server`."""
