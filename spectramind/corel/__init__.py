"""Conformal relational learning: what related bins and a planet's own numbers say about the size of its errors."""
