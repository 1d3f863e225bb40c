"""Engines that run a bundle's dense graph, one module each."""
