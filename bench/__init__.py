"""Measurements: rota beside other ways to hand requests to worker processes (`make bench`)."""
