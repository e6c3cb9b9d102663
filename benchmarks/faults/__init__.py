"""Fault tests: what kills, damage, races and hostile files do to a cache and to a bundle, in figures."""
