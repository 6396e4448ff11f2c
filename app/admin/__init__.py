"""The admin site: pages for those who run the service."""
