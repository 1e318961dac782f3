"""Carries orders to authors and what became of them back: at once, or through journals to workers beside training."""
