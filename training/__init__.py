"""How the reference models are made: rendered pictures in, bundles out. Needs PyTorch; the service never imports it."""
