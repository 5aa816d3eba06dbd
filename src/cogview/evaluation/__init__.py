"""How good trained models are, in figures."""
