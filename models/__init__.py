"""One config-driven decoder and its presets; never imported by rods_jax."""
