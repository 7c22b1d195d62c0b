"""Pages and connections of a server: who may come, what a browser may do, bounds."""
