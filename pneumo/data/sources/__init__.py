"""One module a data format: settings → annotated films."""
