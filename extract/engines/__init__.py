"""Engines: what runs the shards of a plan. An engine knows shards and workers and nothing of images.

An engine takes the work that `extract_shard` needs, shard by shard, and yields receipts in any order.
"""

from extract.engines import local

ENGINES = {"local": local.run}

__all__ = ["ENGINES"]
