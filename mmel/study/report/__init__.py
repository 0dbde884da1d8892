"""Tables and figures from records; never imports torch."""
