"""Images, masks and trained classifiers that come with the package."""
