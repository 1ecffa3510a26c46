"""Models: state-space, language, and whatever stands on the same primitives."""
