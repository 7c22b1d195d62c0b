"""Tests; a package of this name in site-packages must not hide them."""
