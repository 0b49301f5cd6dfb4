"""The web page and the HTTP API of `catordog serve`."""
