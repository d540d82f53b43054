"""How others scale, from their published rules, as sizing policies of sagescale; README.md cites each."""
