"""What operators cost on a device: tables of measured latencies, and how they are read."""
