"""Pure rules: what may happen to an execution, a component, a ring. No I/O, no clock, no randomness of its own."""
