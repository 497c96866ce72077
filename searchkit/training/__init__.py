"""Training: samples decoded once, networks fitted to them, and what is needed to go on after an interruption."""
