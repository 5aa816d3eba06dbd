"""HTTP server over the engine: APIs and web page. Needs the extra `serve`."""
