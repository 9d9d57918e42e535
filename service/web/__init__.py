"""The web pages: jobs, review, signing in. Plain HTML, modules and canvases; nothing comes from elsewhere."""
