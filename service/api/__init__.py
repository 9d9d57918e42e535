"""The HTTP calls: routes, their documents, their problem answers."""
