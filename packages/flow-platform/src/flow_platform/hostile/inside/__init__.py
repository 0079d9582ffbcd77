"""Sources of components. Nothing here is imported by the platform: `source` reads the files."""
