"""From an `nn.Module` to something a vehicle can load: export, proof, bundle, run."""
