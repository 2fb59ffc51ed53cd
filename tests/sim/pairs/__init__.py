"""A pair of masters in the simulation: who may dispatch, whatever is cut, paused, killed or started again."""
