"""Environments: requirements become a hashed lock, a lock becomes a folder of packages, made once, in a sandbox."""
