"""Extraction measured: this project beside what others do on the same files, and beside the limit of the machine."""
