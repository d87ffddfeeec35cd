"""Real pretrained models that packages carry."""
