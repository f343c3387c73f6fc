"""Reports for people: one document of text, tables and pictures, written as HTML, Markdown and SVG."""
