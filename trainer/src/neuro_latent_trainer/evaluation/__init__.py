"""How good an adapter is: its texts, its loss and its latent space, beside baselines on the same rows."""
