"""Serving: HTTP over the engine, for programs and people. Needs the extra `serve`."""
