"""What runs inside a container: takes the START frame, calls the component, sends its result. See `main`."""
