"""How fast, how big, how far from the limit: measurements of networks, each with what it was measured on."""
