"""What fine-tuning brings, and what the cached trunk saves."""
