"""What the engine of many machines costs on one, and what its driver takes for a million shards."""
