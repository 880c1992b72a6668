"""The demo: four methods on the embedded world, side by side, in about three minutes on two CPU cores."""
