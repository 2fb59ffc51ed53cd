"""Peers that lie at speed: `python tests/fuzz/run.py --frames 1000000 --seed 1`."""
