"""The others, each a program of its own that prints one line of JSON; Python 3.10 suffices, and torch 2.0."""
