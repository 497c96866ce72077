"""Rewrites of exported graphs, one file each: the file's name is the rewrite's, and `REWRITE` what it defines."""
